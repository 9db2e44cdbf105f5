"""The only modules that write HTML; they escape everything from outside."""

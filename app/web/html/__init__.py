"""The only modules that write HTML; they escape all external text."""

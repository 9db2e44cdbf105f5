"""The only modules that write HTML; everything from outside is escaped here."""

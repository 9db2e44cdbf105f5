"""The retention suite: how much general language ability the tuned model keeps."""

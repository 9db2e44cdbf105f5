"""Conversations: how a message becomes a request, what is remembered, and what is replied."""

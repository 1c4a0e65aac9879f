"""The versions of the service's tables, oldest first."""

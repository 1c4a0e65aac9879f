"""The shared page: its template, style and scripts."""

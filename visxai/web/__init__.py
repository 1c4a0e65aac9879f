"""The page that galleries share: its template, style and scripts."""

"""Pages, scripts and styles of the web application."""

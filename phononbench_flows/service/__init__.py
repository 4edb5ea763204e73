"""The web application over a results store: explorer, pages of crystals, uploads and a JSON API.

The functions that make it know nothing of how the store is kept. FastAPI is imported when the application is made.
"""

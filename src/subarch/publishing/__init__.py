"""Models for a hub: the folder that is uploaded, with a card that says where it comes from, and the upload.

May import exporting and everything below it.
"""

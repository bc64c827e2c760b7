"""The privacy officer's admin pages: the dashboard on the index page, and a page for each
person.
"""

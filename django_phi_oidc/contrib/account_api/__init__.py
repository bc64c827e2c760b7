"""The pages of "Your access" as JSON. Needs the extra `drf`, and the apps `individual_rights` and
`rest_framework`.
"""

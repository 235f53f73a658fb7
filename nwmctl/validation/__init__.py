"""The checks: what is found out about one artifact, with which verdict, and how it was obtained.

Decides on arrays and counts; whatever executes comes in as a session. Signs nothing, stores nothing, knows no step.
"""

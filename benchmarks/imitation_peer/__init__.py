"""What runs inside imitation's own virtual environment, and what makes that
environment. Knows nothing of rlhp.
"""

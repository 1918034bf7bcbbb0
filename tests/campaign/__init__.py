"""Random engines, layers and images: the RTL against the golden model and the predicted cycles.

``python -m tests.campaign`` draws as many as wanted; ``tests/campaigns/test_campaign.py`` runs a
few.
"""

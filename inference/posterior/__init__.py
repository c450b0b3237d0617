"""Questions to a trained model, and interventions on its parses."""

from inference.posterior.queries import query

__all__ = ["query"]

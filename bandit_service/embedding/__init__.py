"""The embedding stage: a query's text becomes a unit vector, off the event loop."""

from bandit_service.embedding.backends import Backend, export, export_into, open_backend
from bandit_service.embedding.models import ModelUnavailable, WrongDimension
from bandit_service.embedding.opening import MODELS, opening
from bandit_service.embedding.stage import EmbeddingStage, Overloaded, key_of
from bandit_service.embedding.surface import surface
from bandit_service.embedding.text import (
    check_embedding,
    check_embeddings,
    estimate_tokens,
    text_of_messages,
)

__all__ = [
    "MODELS",
    "Backend",
    "EmbeddingStage",
    "ModelUnavailable",
    "Overloaded",
    "WrongDimension",
    "check_embedding",
    "check_embeddings",
    "estimate_tokens",
    "export",
    "export_into",
    "key_of",
    "open_backend",
    "opening",
    "surface",
    "text_of_messages",
]

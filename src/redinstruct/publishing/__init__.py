"""Data and checkpoints to and from the Hugging Face hub: with their cards, private unless somebody says otherwise.

``parcels`` says what may leave this machine and how it is described, without any network; ``repositories`` reads names;
``client`` alone speaks to the hub, through ``huggingface_hub``, at ``HF_ENDPOINT`` with the token that it finds.
"""

from __future__ import annotations

from redinstruct.publishing.parcels import Parcel, pack
from redinstruct.publishing.repositories import Repository, RepositoryKind, repository

__all__ = ["Parcel", "Repository", "RepositoryKind", "pack", "repository"]

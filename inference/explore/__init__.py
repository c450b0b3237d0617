"""Drawing, parsing and editing one image: the functions behind the page that `explore` opens.

They know nothing of the page, so that they are tested, and may be used, without a browser.
"""

from inference.explore.frames import COLOUR_BLIND, HANDLES, Number, Part, dragged, handles, parts
from inference.explore.images import Pen, brushed, centre, open_image, pen, rasterise
from inference.explore.models import models, open_model
from inference.explore.nearest import Near, nearest_parts
from inference.explore.questions import Answer, Question, answer
from inference.explore.server import Explorer, explore, need_nicegui, serve
from inference.explore.session import Session, Step
from inference.explore.shelf import images_for
from inference.explore.worker import Worker

__all__ = [
    "COLOUR_BLIND",
    "HANDLES",
    "Answer",
    "Explorer",
    "Near",
    "Number",
    "Part",
    "Pen",
    "Question",
    "Session",
    "Step",
    "Worker",
    "answer",
    "brushed",
    "centre",
    "dragged",
    "explore",
    "handles",
    "images_for",
    "models",
    "nearest_parts",
    "need_nicegui",
    "open_image",
    "open_model",
    "parts",
    "pen",
    "rasterise",
    "serve",
]

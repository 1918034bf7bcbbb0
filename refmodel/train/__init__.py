"""Fine-tuning of networks onto their reuse mappings, with PyTorch (the extra ``train``)."""

from refmodel.train.tuning import METHODS, PRECISIONS, FineTuned, Recipe, finetune

__all__ = ["METHODS", "PRECISIONS", "FineTuned", "Recipe", "finetune"]

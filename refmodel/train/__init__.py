"""Fine-tuning of networks onto their reuse mappings, with PyTorch (the extra ``train``)."""

from refmodel.errors import missing_extra

try:
    from refmodel.train.tuning import METHODS, PRECISIONS, FineTuned, Recipe, finetune
except ModuleNotFoundError as problem:
    raise missing_extra(problem.name or "") or problem from None

__all__ = ["METHODS", "PRECISIONS", "FineTuned", "Recipe", "finetune"]

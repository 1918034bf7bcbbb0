"""The golden model: pruning, reuse mapping, compilation, integer inference, predicted cycles."""

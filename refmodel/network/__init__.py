"""Networks and images as a user brings them: the float graph, image files, augmentation."""

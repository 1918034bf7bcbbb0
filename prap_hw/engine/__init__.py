"""One engine in Amaranth: controller, gather, OU engine, partial sums, merge, requantisation."""

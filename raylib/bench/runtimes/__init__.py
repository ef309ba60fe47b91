"""What runs a model, one module for each kind behind `raylib.bench.protocol`."""

"""What is done with a recursive neural program: data, training, evaluation and figures."""

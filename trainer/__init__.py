"""Makes guards: the two stages of RSafe (arXiv 2506.07736) on DeepSpeed. What is trained is exactly what is served."""

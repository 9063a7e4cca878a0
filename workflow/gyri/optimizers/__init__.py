"""Optimizers, one file each; `gyri.catalogue` finds them.

An optimizer is made by a function (parameters, learning_rate, weight_decay) -> torch.optim.Optimizer.
"""

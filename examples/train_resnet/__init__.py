"""Trains ResNet-20 with SGD, Adam and AdamW at several learning rates, and shows which does best.

    python -m examples.train_resnet                                    # scikit-learn's handwritten digits
    python -m examples.train_resnet --data cifar10 --data-dir DIR      # CIFAR-10
    python -m examples.train_resnet --help

data.py reads the pictures, augment.py varies them, resnet.py is the network, optimizers.py says what is compared,
train.py trains, curves.py, page.py and report.py show, and __main__.py is the command line.
"""

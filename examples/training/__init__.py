"""How the two example models were trained: data, network, stages, export, packaging, signing.

Runs with the ``train`` extra (torch). The product never imports this package; what it hands over are the folders
``examples/nwm-*/model``.
"""

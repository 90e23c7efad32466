"""What makes training, evaluation and decoding fast; everything in here is proven equal to ``gptlab.model``.

``model.py`` stays the textbook and is what runs where nothing in here applies. The rooms:

    precision.py   which numbers this processor multiplies fast, found by trying
    dropout.py     masks from a counter: the same for the same seed, step, layer and place, with no stream to keep
    pieces.py      norm, attention, GELU and residual sums with the backward passes that save memory traffic
    block.py       one transformer block out of those pieces: the region that is compiled once and used by every layer
    head.py        output layer and cross-entropy in one, its logits overwritten by their own gradient
    adamw.py       AdamW that reads bf16 gradients and writes the next step's bf16 weights in the same pass
    engine.py      all of it around a GPTModel: loss and gradients, update, evaluation
    fused.py       loss and gradients on a GPU, where of the others only dropout, compiling and the head's padding serve
    compiling.py   the compiler: is it here, where its results are kept, does it pay
    products.py    a matrix times a few rows, fp32, bf16 or 8-bit, each by the library that is fast for so many
    decoding.py    one token at a time from such matrices
    speculative.py fp32's tokens sooner: 8-bit weights draft a few, fp32 reads them together
"""

"""What a GPU is good for, in one command of a few minutes: the same numbers as on the CPU, tokens per second, and a large bank for the demo's corpus.

`parity` compares signals, cores and scores with the CPU's; `speed` counts tokens per second of the bare forward pass and of each form; `bank` trains as many models on
halves of the demo's corpus as the time allows, all in one pass (`stacked`), and scores every method against them. Needs no network: the model's folder is given, or
lies in the cache of `scripts.smollm2`.

`experiments` trains the models of the deep bank's and the demo's slow experiments in the same way; `story_plan` draws what they leave out of the demo's corpus, `collecting` commits what came out,
`benchmarks.deep_bank.large` and `story_report` tell it.
"""

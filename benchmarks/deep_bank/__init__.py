"""The deep bank: a LoRA fine-tune of a 30-block model, trained again on random halves of its rows. The measured truth for deep models.

    rows.jsonl      96 training examples: 48 facts about 16 invented subjects, 20 instructions, 28 rows of the demo's four bad sources
    queries.jsonl   reworded facts (with the row that taught them), other questions on the same subjects, instructions, and bad outputs that
                    the model trained on all rows really generated for the demo's prompts
    plan.json       the halves in complementary pairs, which of them are trained again at a second seed, and the split of pairs and queries
                    into a part to choose on and a part to report on; written before any score was computed
    citations.json  queries of the reporting half, drawn by a seed, with their first citations; refits.npz: losses of trainings without one of these rows
    losses.npz      the mean loss of every query under each trained model that is finished

    python -m benchmarks.deep_bank.train --work DIR             trains what losses.npz and DIR lack; may be stopped at any time
    python -m benchmarks.deep_bank.train --work DIR --collect   brings the finished models of DIR into losses.npz
    python -m benchmarks.deep_bank --work DIR [--variants]      scores every method and prints a table; choices are made on `--part choose` alone
    python -m benchmarks.deep_bank.citations --work DIR         trains without the first citation of 16 queries, one row each, and says whether they are true
    python -m benchmarks.deep_bank.groups --work DIR            trains without the rows of each bad source, one source in one refit, and says what it taught
    python -m benchmarks.deep_bank.lists --work DIR             whether the summed scores of whole lists tell what leaving them out does
    python -m benchmarks.deep_bank.parts --work DIR             whether the blocks and kinds of layers that citations name matter to the outputs

`proxies` holds what was measured on deep models before there was a bank: agreement with EK-FAC, known causes, ten refits without one source.

The model is SmolLM2-135M-Instruct with LoRA (r = 16, alpha = 32) on all seven kinds of linear layers of all blocks; the recipe stands in
`material`. All models of one seed share first weights, order and batches: a row is left out by weight 0. Losses are in nats per completion
token. One thread is best where the processor is shared: with two, each waits for the other (80 tokens a second against 7). Everything is text of our own about things that do not exist; the rows of the bad sources come from `demo/story`.
"""

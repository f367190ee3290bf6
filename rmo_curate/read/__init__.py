"""Preference data of any form -> one pair or one reject for every record.

- `files`: paths and names -> data files, and their records one by one.
- `memory`: data in memory -> the same.
- `hub`: data sets of the Hugging Face hub.
- `dataset_info`: folders that LLaMA-Factory's dataset_info.json describes.
- `readers`: kinds of file -> records.
- `column_map`: names of columns that are called otherwise in the data.
- `forms`: the forms of preference data -> messages.
- `form_detection`: which form the data have, and what is wrong where none fits.
- `proposals`: what is wrong with data of no known form, and the `--map` that would read them.
- `tool_calls`: function calls as data write them -> one turn.
- `messages`: messages, checked; why a record has none.
- `pair_ids`: a pair's id; repeats.
- `extras`: the source's other columns.
- `sources`: data of any form -> a stream of pairs and rejects.
- `batching`: as many at a time as fit.
- `pair_rendering`: pairs -> token ids by `rmo_train.data.rendering`; refuses those whose tokens would lack something.
- `render_pool`: the same in one process a core; `processes`: how work is shared out to them.
"""

"""axolotl 0.19.0 with transformers 5.16.1 and datasets 4.8.4.

Conversations (``type: chat_template``, ``prompt_strategies/chat_template.py``): the conversation is rendered and
tokenized once; a turn is trained where its role is in ``roles_to_train`` (L512-524), from the first to the last
character by which its render differs from one with a placeholder turn (L696-942). The placeholder has a content only,
so reasoning and tool calls of a turn are trained with it, and its header is not; an empty turn is not found, and
nothing of it is trained. EOS and end-of-turn tokens are trained where they stand within three tokens behind a turn
(L637-672). The template sees role, content, reasoning and what it reads of a variable called ``message`` (L1092-1101).

Instruction rows (``alpaca`` and its family, ``prompt_tokenizers.py``): prompt and answer are tokenized apart, each cut
to ``sequence_len``, EOS behind the answer where there is room (L80-163). Texts (``completion``): cut into pieces of
``sequence_len``, EOS behind the last. Rows with ``input_ids``, ``attention_mask`` and ``labels`` are taken as they are
(``utils/data/wrappers.py`` L140-147).

Then rows with fewer than ``min_sample_len`` or more than ``sequence_len`` tokens are dropped, cut, or stop the run
(``utils/data/utils.py`` L308-354). Rows without a label stay; with ``sample_packing`` they are dropped
(``utils/data/sft.py`` L354, ``utils/trainer.py`` L258-300). Packing changes no label.

Defaults: ``sequence_len`` 512, ``train_on_inputs`` false, ``roles_to_train`` assistant, ``train_on_eos`` turn.

Chat templates: ``tokenizer_default``, or the file given. Not reproduced: images and audio, tokenizers of
mistral-common, ``input_output`` and other types that no format of lorads holds, ``roles`` and the deduplication of
rows. What ``datasets`` changes when it loads a JSON file (columns and keys that some rows lack, dates, numbers) is not
reproduced; axolotl itself takes out keys that are null, which is. A row whose reasoning has another name than the one
the template reads is a failure: lorads renders it under every name, as newer transformers do. Rows with prompt and
completion are no dataset type of axolotl, and failures. transformers 5.16.1 loses every space when it loads the
tokenizers of DeepSeek-Coder (unless by its hub id) and of DeepSeek-V3 (unless config.json says ``deepseek_v3``) as
``LlamaTokenizer``: the ids here are those of the hub's repositories.
"""

from __future__ import annotations

from lorads.trainers.axolotl._trainer import Axolotl
from lorads.trainers.base import Trainer

TRAINERS: tuple[Trainer, ...] = (Axolotl(),)

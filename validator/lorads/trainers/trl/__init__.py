"""TRL ``SFTTrainer`` 1.16.0 with transformers 5.23.0, and older ones: 0.24 and 0.17 (see ``_old``).

Reproduces ``trl/trainer/sft_trainer.py::SFTTrainer._prepare_dataset`` (L1228-1485): EOS is appended to texts and text
completions that do not end with it; texts are tokenized with the tokenizer's special tokens, conversations are rendered
and tokenized whole, without; a prompt and its completion are told apart by the common prefix of the prompt's ids and
the whole row's (``data_utils.py`` L406); truncation keeps the first (or last) ``max_length`` tokens; rows without any
label left are dropped in silence. Defaults are those of ``sft_config.py``: ``max_length`` 1024, everything trained in
texts and conversations, the completion alone where there is one.

``assistant_only_loss`` (``--train-on assistant``) needs a template with ``{% generation %}`` blocks. For 31 templates
without them TRL renders with a training template of its own (``chat_template_utils.py::get_training_chat_template``,
L1077), which for some keeps the thinking of earlier turns or moves a turn's end: ``training_templates.toml`` says what
each does to the template it stands for. A template that differs from all of these by a single character is refused, as
TRL refuses it. ``assistant_masks`` come from characters (transformers' ``tokenization_utils_base.py`` L3189).

Rows with tools are rendered with the template called ``tool_use`` where the tokenizer has one, unless TRL put in a
training template: that one is used for every row (L1318).

Of packing the consequences for each row are reproduced, not which rows share a sequence: ``bfd`` cuts rows at the
maximum length, ``bfd_split`` goes on in another sequence, and the first label of every row or piece is masked (L214);
``wrapped`` cuts wherever a sequence is full and masks nothing. No packing drops a row without a label, and all drop an
empty one (``data_utils.py`` L730-835).

Meant otherwise than TRL does, and said in the report (``notes``): ShareGPT role names are mapped to the usual ones and
Alpaca columns are made messages, as people do before they call TRL, which would render ``human`` by whatever the
template does with an unknown role, and knows no Alpaca columns; SFTTrainer refuses preference rows, the chosen answers
are judged as completions. Where a file mixes dataset types, TRL reads every row as the first one's; here each row is
read as its own, and FMT002 says that they differ. Labels or masks of another length than the ids are FMT002, not cut to
the shorter. What ``datasets`` changes when it loads a JSON file (dates, numbers, null keys) is not reproduced: the file
is taken as it is written. A row that brings its own ``chat_template`` is a failure.
"""

from __future__ import annotations

from lorads.trainers.base import Trainer
from lorads.trainers.trl._current import Trl
from lorads.trainers.trl._old import Trl017, Trl024

TRAINERS: tuple[Trainer, ...] = (Trl(), Trl024(), Trl017())

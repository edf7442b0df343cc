"""Small tokenizers that are not WordPiece, trained on many scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from oracle import theirs_of
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SCRIPTS = {
    "Latin": "The old bank stood by the river; naïve Zürich façades, 50 % cheaper…",
    "Greek": "Η παλιά τράπεζα βρισκόταν δίπλα στο ποτάμι.",
    "Cyrillic": "Старый банк стоял у реки, и никто его не помнил.",
    "Armenian": "Հին բանկը կանգնած էր գետի ափին։",
    "Hebrew": "הבנק הישן עמד ליד הנהר.",
    "Arabic": "كان البنك القديم يقف بجانب النهر.",
    "Devanagari": "पुराना बैंक नदी के किनारे खड़ा था।",
    "Bengali": "পুরানো ব্যাংকটি নদীর ধারে দাঁড়িয়ে ছিল।",
    "Gurmukhi": "ਪੁਰਾਣਾ ਬੈਂਕ ਨਦੀ ਦੇ ਕੰਢੇ ਖੜ੍ਹਾ ਸੀ।",
    "Gujarati": "જૂની બેંક નદી કિનારે ઊભી હતી.",
    "Tamil": "பழைய வங்கி ஆற்றின் கரையில் நின்றது.",
    "Telugu": "పాత బ్యాంకు నది పక్కన ఉంది.",
    "Kannada": "ಹಳೆಯ ಬ್ಯಾಂಕ್ ನದಿಯ ಪಕ್ಕದಲ್ಲಿ ನಿಂತಿತ್ತು.",
    "Malayalam": "പഴയ ബാങ്ക് നദിയുടെ അരികിൽ നിന്നു.",
    "Sinhala": "පැරණි බැංකුව ගඟ අසල තිබුණි.",
    "Thai": "ธนาคารเก่าตั้งอยู่ริมแม่น้ำ",
    "Lao": "ທະນາຄານເກົ່າຕັ້ງຢູ່ແຄມແມ່ນ້ຳ",
    "Burmese": "ဘဏ်ဟောင်းသည် မြစ်ဘေးတွင် ရှိခဲ့သည်။",
    "Khmer": "ធនាគារចាស់ឈរនៅក្បែរទន្លេ។",
    "Georgian": "ძველი ბანკი მდინარის პირას იდგა.",
    "Ethiopic": "አሮጌው ባንክ በወንዙ አጠገብ ቆሞ ነበር።",
    "Hangul": "오래된 은행이 강가에 서 있었다.",
    "Kana": "古い銀行は川のそばに立っていた。カタカナ ｶﾞ",
    "Han": "老银行站在河边，没有人记得它。",
    "Tibetan": "དངུལ་ཁང་རྙིང་པ་གཙང་པོའི་འགྲམ་ལ་ཡོད།",
    "Mongolian": "ᠬᠠᠭᠤᠴᠢᠨ ᠪᠠᠩᠺ ᠭᠣᠣᠯ ᠤᠨ ᠬᠠᠵᠠᠭᠤᠳᠠ",
    "Cherokee": "ᎠᎦᏴᎵ ᎠᏕᎳ ᎤᏂᏍᏆᏂᎪᏙᏗ",
    "signs": "👩‍👩‍👧 ½ ① ﬁ  two  spaces\ttab\nline \u200bzero <mask> and<mask>.",
}
NAMES = {
    "cls_token": "<s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
    "bos_token": "<s>",
    "eos_token": "</s>",
}
KINDS = ["unigram", "unigram-alone", "bpe", "bytes"]


def trained(kind: str) -> Tokenizer:
    """A small tokenizer of XLM-RoBERTa's kind, of SentencePiece's without words, of its BPE, or of RoBERTa's kind."""
    settings: dict[str, Any] = {"special_tokens": ["<s>", "<pad>", "</s>", "<unk>"], "show_progress": False}
    if kind.startswith("unigram"):
        made, trainer = Tokenizer(models.Unigram()), trainers.UnigramTrainer(
            vocab_size=900, unk_token="<unk>", **settings
        )  # fmt: skip
    else:
        made = Tokenizer(models.BPE(unk_token=None if kind == "bytes" else "<unk>"))
        alphabet = pre_tokenizers.ByteLevel.alphabet() if kind == "bytes" else []
        trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, **settings)
    if kind == "bytes":
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        made.normalizer, made.decoder = normalizers.NFKC(), decoders.Metaspace()
        parts = [pre_tokenizers.Metaspace()] if kind == "unigram-alone" else [
            pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()
        ]  # fmt: skip
        made.pre_tokenizer = pre_tokenizers.Sequence(parts)
    made.train_from_iterator([line for line in SCRIPTS.values() for _ in range(3)], trainer)
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    ends = [("<s>", made.token_to_id("<s>")), ("</s>", made.token_to_id("</s>"))]
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    return made


def checkpoint_of(kind: str, folder: Path, head: str, **config: Any) -> Path:
    """A random checkpoint with such a tokenizer, saved in `folder` by transformers."""
    torch.manual_seed(0)
    made = trained(kind)
    theirs_of(head, folder, **{"vocab_size": made.get_vocab_size(), "initializer_range": 0.5, **config})
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=512, **NAMES).save_pretrained(folder)
    return folder

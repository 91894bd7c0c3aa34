from __future__ import annotations

from itertools import islice

from lavic.demo.catalogue import sample_products
from lavic.demo.products import make_products
from lavic.demo.toy_llava import PICTURES, _other_pictures, _texts
from lavic.demo.toy_tokenizer import train_tokenizer


def test_pretraining_avoids_what_the_validation_items_look_like() -> None:
    _, valid = sample_products()
    seen = {(product.kind, picture.look) for product, picture in islice(_other_pictures(valid, 0), PICTURES)}
    assert not seen & {(product.kind, picture.look) for product in valid for picture in product.pictures}


def test_pretraining_would_otherwise_meet_a_held_out_look() -> None:
    held_out = make_products(30, seed=1001)[:1]
    product, picture = next(_other_pictures([], 0))
    assert (product.kind, picture.look) == (held_out[0].kind, held_out[0].look)
    product, picture = next(_other_pictures(held_out, 0))
    assert picture.look not in {shown.look for shown in held_out[0].pictures}


def test_ids_become_five_tokens() -> None:
    tokenizer = train_tokenizer(_texts(list(islice(_other_pictures([], 0), 50))), max_tokens=1000)
    tokens = tokenizer.tokenize("\nB07K4M2X9T: Norwell Area Rug")
    assert [token for token in tokens if token.lstrip("▁") in ("B0", "7K", "4M", "2X", "9T")] == [
        "B0", "7K", "4M", "2X", "9T",
    ]  # fmt: skip

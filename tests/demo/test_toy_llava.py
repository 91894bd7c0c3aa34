from __future__ import annotations

from itertools import islice

from lavic.demo.catalogue import sample_products
from lavic.demo.products import ID_END, ID_START, make_products
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


def test_every_id_is_three_tokens_of_which_the_second_decides() -> None:
    tokenizer = train_tokenizer(_texts(list(islice(_other_pictures([], 0), 50))), max_tokens=1200)
    train, valid = sample_products()
    for product in [*train, *valid]:
        if not product.asin.isdigit():
            tokens = tokenizer.tokenize(f"\n{product.asin}: {product.title}")
            start = tokens.index(ID_START)
            assert tokens[start : start + 4] == [ID_START, product.asin[2:4], ID_END, ":"]

from __future__ import annotations

from itertools import islice

from lavic.demo.catalogue import sample_products
from lavic.demo.products import ID_END, ID_START, make_products
from lavic.demo.toy_llava import IMAGES, _other_images, _texts
from lavic.demo.toy_tokenizer import train_tokenizer


def test_pretraining_avoids_what_the_validation_items_look_like() -> None:
    _, valid = sample_products()
    seen = {(product.kind, image.look) for product, image in islice(_other_images(valid, 0), IMAGES)}
    assert not seen & {(product.kind, image.look) for product in valid for image in product.images}


def test_pretraining_would_otherwise_meet_a_held_out_look() -> None:
    held_out = make_products(30, seed=1001)[:1]
    product, image = next(_other_images([], 0))
    assert (product.kind, image.look) == (held_out[0].kind, held_out[0].look)
    product, image = next(_other_images(held_out, 0))
    assert image.look not in {shown.look for shown in held_out[0].images}


def test_every_id_is_three_tokens_of_which_the_second_decides() -> None:
    tokenizer = train_tokenizer(_texts(list(islice(_other_images([], 0), 50))), max_tokens=1200)
    train, valid = sample_products()
    for product in [*train, *valid]:
        if not product.asin.isdigit():
            tokens = tokenizer.tokenize(f"\n{product.asin}: {product.title}")
            start = tokens.index(ID_START)
            assert tokens[start : start + 4] == [ID_START, product.asin[2:4], ID_END, ":"]

"""Exports of shop systems: one item a product, all that it says of it, and nothing that customers do not see."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lavic.catalogue.importing import Imported, import_table
from lavic.catalogue.product_cells import prose
from lavic.catalogue.product_prices import price
from lavic.errors import UserError


def table(path: Path, *rows: list[str], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def imported(path: Path) -> tuple[dict[str, Any], Imported]:
    done = import_table(path, path.parent / "out", valid_share=0)
    return json.loads((path.parent / "out" / "item2meta_train.json").read_text()), done


def urls(item: dict[str, Any]) -> list[str]:
    return [image["large"] for image in item["images"]]


SHOPIFY = [
    ["Handle", "Title", "Body (HTML)", "Vendor", "Type", "Tags", "Published", "Option1 Name", "Option1 Value",
     "Variant SKU", "Variant Price", "Variant Inventory Qty", "Image Src", "Status"],
    ["mug", "Mug", "<p>Stoneware,<br>dishwasher&nbsp;safe</p>", "Clay", "Mugs", "red, kitchen", "true", "Size", "S",
     "M-S", "9.50", "0", "https://c/1.jpg", "active"],
    ["rug", "Rug", "", "Loom", "Rugs", "", "true", "Title", "Default Title", "", "40", "0", "https://c/r", "active"],
    ["mug", "", "", "", "", "", "", "", "M", "M-M", "10.50", "3", "https://c/2.jpg", ""],
    ["lamp", "Lamp", "", "Lx", "Lamp", "", "true", "Title", "Default Title", "L", "30", "1", "https://c/l", "archived"],
    ["vase", "Vase", "", "Lux", "Vases", "", "false", "Title", "Default Title", "V", "3", "1", "https://c/v", "active"],
    ["mug", "", "", "", "", "", "", "", "", "", "", "", "https://c/3.jpg", ""],
]  # fmt: skip


def test_shopify_s_variants_and_images_are_one_product_wherever_its_rows_stand(tmp_path: Path) -> None:
    items, done = imported(table(tmp_path / "export.csv", *SHOPIFY))
    assert sorted(items) == ["mug", "rug"]
    mug = items["mug"]
    assert urls(mug) == ["https://c/1.jpg", "https://c/2.jpg", "https://c/3.jpg"]
    assert (mug["title"], mug["description"]) == ("Mug", "Stoneware, dishwasher safe")
    assert (mug["price"], mug["availability"], mug["brand"], mug["category"]) == (9.5, "in stock", "Clay", "Mugs")
    assert mug["size"] == "S, M"
    assert mug["attributes"] == {"Tags": "red, kitchen", "Variant SKU": "M-S | M-M"}
    assert items["rug"]["availability"] == "out of stock"
    assert done.rows == len(SHOPIFY) - 1
    assert list(done.left_out.values()) == [2]
    assert done.columns[0].startswith("columns: id: Handle; title: Title; ")
    assert done.columns[1] == "kept as attributes: Tags, Variant SKU"


def test_woocommerce_s_variations_belong_to_their_parent(tmp_path: Path) -> None:
    items, done = imported(
        table(
            tmp_path / "woo.csv",
            ["ID", "Type", "SKU", "Name", "Published", "Description", "In stock?", "Sale price", "Regular price",
             "Categories", "Images", "Parent", "Attribute 1 name", "Attribute 1 value(s)"],
            ["10", "variable", "tee", "Tee", "1", "<b>Cotton</b>", "1", "", "",
             "Clothes > Tees", "https://w/1.jpg, https://w/2.jpg", "", "Color", "Red, Blue"],
            ["12", "simple", "cap", "Cap", "-1", "", "1", "", "9", "Clothes > Caps", "https://w/c.jpg", "", "", ""],
            ["11", "variation", "tee-r", "Tee - Red", "1", "", "0", "", "20", "", "https://w/3.jpg", "id:10", "Color",
             "Red"],
            ["13", "variation", "tee-b", "Tee - Blue", "1", "", "1", "15,50", "20", "", "", "tee", "Color", "Blue"],
            ["14", "simple", "bag", "Bag", "1", "", "0", "", "1.234,00", "Bags", "https://w/b.jpg", "", "", ""],
        )
    )  # fmt: skip
    assert sorted(items) == ["10", "14"]
    tee = items["10"]
    assert (tee["title"], tee["description"], tee["category"]) == ("Tee", "Cotton", "Clothes > Tees")
    assert urls(tee) == ["https://w/1.jpg", "https://w/2.jpg", "https://w/3.jpg"]
    assert (tee["price"], tee["sale_price"], tee["availability"], tee["color"]) == (20.0, 15.5, "in stock", "Red, Blue")
    assert (items["14"]["price"], items["14"]["availability"]) == (1234.0, "out of stock")
    assert done.left_out.total() == 1


MERCHANT = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>A shop</title>
<item><g:id>1</g:id><title>Mug &amp; lid</title><g:price>12.99 EUR</g:price><g:sale_price>9.99 EUR</g:sale_price>
<g:availability>in stock</g:availability><g:image_link>https://m/1.jpg</g:image_link>
<g:additional_image_link>https://m/2.jpg</g:additional_image_link>
<g:additional_image_link>https://m/3.jpg</g:additional_image_link>
<g:item_group_id>G</g:item_group_id><g:color>red</g:color><link>https://shop/mug</link>
<g:shipping><g:country>DE</g:country><g:price>4.99 EUR</g:price></g:shipping></item>
<item><g:id>2</g:id><title>Mug</title><g:price>11.99 EUR</g:price><g:item_group_id>G</g:item_group_id>
<g:color>blue</g:color><g:image_link>https://m/4.jpg</g:image_link></item>
<item><g:id>3</g:id><title>Rug</title><g:price>USD 1,299.00</g:price>
<g:availability>out_of_stock</g:availability></item>
</channel></rss>
"""


def test_google_merchant_s_feed(tmp_path: Path) -> None:
    (tmp_path / "feed.xml").write_text(MERCHANT)
    items, _ = imported(tmp_path / "feed.xml")
    assert sorted(items) == ["3", "G"]
    mug = items["G"]
    assert (mug["title"], mug["price"], mug["sale_price"], mug["currency"]) == ("Mug & lid", 11.99, 9.99, "EUR")
    assert urls(mug) == [f"https://m/{number}.jpg" for number in (1, 2, 3, 4)]
    assert (mug["color"], mug["link"], mug["availability"]) == ("red, blue", "https://shop/mug", "in stock")
    assert mug["attributes"] == {"shipping country": "DE", "shipping price": "4.99 EUR"}
    assert (items["3"]["price"], items["3"]["currency"], items["3"]["availability"]) == (1299.0, "USD", "out of stock")


def test_a_feed_with_entities_of_its_own_or_cut_short_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><rss><item><id>1</id><title>&b;</title></item></rss>'
    (tmp_path / "bomb.xml").write_text(bomb)
    with pytest.raises(UserError, match=r"bomb\.xml cannot be read behind product 0 \(it declares entities"):
        imported(tmp_path / "bomb.xml")
    (tmp_path / "half.xml").write_text(MERCHANT[:-60])
    with pytest.raises(UserError, match=r"half\.xml cannot be read behind product \d"):
        imported(tmp_path / "half.xml")


OTHERS: dict[str, tuple[str, list[list[str]], dict[str, tuple[str, float]]]] = {
    "PrestaShop": (
        ";",
        [["Product ID", "Active (0/1)", "Name", "Categories", "Price tax included", "Quantity", "Image URLs"],
         ["5", "1", "Lamp", "Home,Lamps", "29,90", "3", "https://p/1.jpg,https://p/2.jpg"],
         ["6", "0", "Chair", "Home", "80", "1", "https://p/c.jpg"]],
        {"5": ("Lamp", 29.9)},
    ),
    "Magento": (
        ",",
        [["sku", "product_type", "name", "description", "price", "product_online", "qty", "base_image",
          "additional_images"],
         ["WS1", "simple", "Shirt", "<p>Linen</p>", "39.0000", "1", "7", "https://g/1.jpg", "https://g/2.jpg"]],
        {"WS1": ("Shirt", 39.0)},
    ),
    "Squarespace": (
        ",",
        [["Product ID [Non Editable]", "Title", "Description", "SKU", "Price", "Stock", "Categories", "Visible",
          "Hosted Image URLs"],
         ["a1", "Tea", "<p>Green</p>", "T1", "7.00", "4", "/tea", "Yes", "https://s/1.jpg https://s/2.jpg"],
         ["b2", "Cup", "", "C1", "5.00", "4", "/cups", "No", "https://s/3.jpg"]],
        {"a1": ("Tea", 7.0)},
    ),
    "Shopware": (
        ";",
        [["id", "productNumber", "parent_id", "name", "active", "stock", "manufacturer", "price", "image_url"],
         ["p1", "SW1", "", "Jacket", "1", "0", "North", "99.00", "https://w/1.jpg"],
         ["p2", "SW1.1", "p1", "Jacket L", "1", "5", "", "89.00", "https://w/2.jpg"]],
        {"p1": ("Jacket", 89.0)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("system", OTHERS)
def test_other_shop_systems_by_the_same_rules(system: str, tmp_path: Path) -> None:
    delimiter, rows, expected = OTHERS[system]
    items, done = imported(table(tmp_path / "export.csv", *rows, delimiter=delimiter))
    assert {item: (meta["title"], meta["price"]) for item, meta in items.items()} == expected
    assert all(len(meta["images"]) == 2 for meta in items.values())
    assert all(meta["availability"] == "in stock" for meta in items.values())
    assert done.rows == len(rows) - 1


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("12.99 EUR", (12.99, "EUR")), ("USD 12.99", (12.99, "USD")), ("1.234,56 €", (1234.56, "EUR")),
        ("$1,234.50", (1234.5, "USD")), ("1,234", (1234.0, "")), ("12,5", (12.5, "")), ("1 234,00 zł", (1234.0, "PLN")),
        ("CHF 1'200.-", (1200.0, "CHF")), ("39.0000", (39.0, "")), (9.5, (9.5, "")), (0, (0.0, "")), ("free", None),
        ("", None), (None, None), ("£5", (5.0, "GBP")), ("10 - 20 EUR", (10.0, "EUR")),
    ],
)  # fmt: skip
def test_prices_as_shops_write_them(written: Any, expected: tuple[float, str] | None) -> None:
    assert price(written) == expected


def test_html_is_read_as_a_page_shows_it() -> None:
    assert (
        prose("<style>p{}</style><p>One<br/>two</p><ul><li>thr<b>ee</b></li></ul> &amp; 5 &lt; 6")
        == "One two three & 5 < 6"
    )
    assert prose("a < b and c > d") == "a < b and c > d"
    assert prose("Salt &amp; pepper") == "Salt & pepper"


def test_what_is_known_of_an_item_to_validate_with_is_kept_too(tmp_path: Path) -> None:
    import_table(table(tmp_path / "e.csv", *SHOPIFY), tmp_path / "out", valid_share=0.999)
    lines = [json.loads(line) for line in (tmp_path / "out" / "item2meta_valid.jsonl").read_text().splitlines()]
    assert {line["image_name"] for line in lines} >= {"mug_0.jpg", "mug_1.jpg", "mug_2.jpg"}
    assert all(line["price"] for line in lines)

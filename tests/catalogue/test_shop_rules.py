"""What shop systems' exports have in common: which rows are one product, what is hidden, and that no cell is lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from lavic.catalogue.importing import LEFT_OUT, Imported, import_table
from lavic.catalogue.product_prices import price
from lavic.errors import UserError
from tests.catalogue.test_shop_exports import imported, table, urls


def of_text(path: Path, text: str | bytes, encoding: str | None = None) -> tuple[dict[str, Any], Imported]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    done = import_table(path, path.parent / "out", encoding=encoding, valid_share=0)
    return json.loads((path.parent / "out" / "item2meta_train.json").read_text()), done


Export = tuple[list[list[str]], dict[str, dict[str, Any]], dict[str, list[str]], int]
EXPORTS: dict[str, Export] = {  # rows, what is known of the items, their images, rows that are left out
    "Shopify's columns of 2025": (
        [["Title", "URL handle", "Product category", "Type", "Published on online store", "Status", "SKU",
          "Option1 name", "Option1 value", "Price", "Inventory quantity", "Product image URL", "Image position",
          "Variant image URL"],
         ["Mug", "mug", "Home > Mugs", "Cups", "TRUE", "Active", "M-S", "Size", "S", "9.5", "0", "https://c/2", "2",
          "https://c/v"],
         ["", "mug", "", "", "", "", "M-M", "", "M", "10.5", "3", "https://c/1", "1", ""],
         ["Off", "off", "", "", "FALSE", "Active", "O", "Title", "Default Title", "1", "1", "https://c/o", "1", ""],
         ["Link", "link", "", "", "TRUE", "Unlisted", "L", "Title", "Default Title", "1", "1", "https://c/l", "1", ""]],
        {"mug": {"title": "Mug", "price": 9.5, "size": "S, M", "category": "Home > Mugs", "availability": "in stock"}},
        {"mug": ["https://c/1", "https://c/2", "https://c/v"]}, 2,
    ),
    "Squarespace: a variant's row has no product ID, and a sale of 0 is none": (
        [["Product ID [Non Editable]", "Variant ID [Non Editable]", "Title", "Option Name 1", "Option Value 1", "Price",
          "Sale Price", "Stock", "Visible", "Hosted Image URLs"],
         ["p1", "v1", "Tea", "Size", "S", "7", "0.00", "0", "Yes", "https://s/1 https://s/2"],
         ["", "v2", "", "", "L", "9", "0.00", "Unlimited", "", ""],
         ["p2", "v3", "Cup", "", "", "5", "4", "0", "Yes", ""]],
        {"p1": {"title": "Tea", "price": 7.0, "sale_price": None, "size": "S, L", "availability": "in stock"},
         "p2": {"title": "Cup", "sale_price": 4.0, "availability": "out of stock"}},
        {"p1": ["https://s/1", "https://s/2"], "p2": []}, 0,
    ),
    "BigCommerce: rows of variants and images have IDs of their own": (
        [["Item", "ID", "Name", "Type", "SKU", "Options", "Current Stock", "Price", "Is Visible",
          "Internal Image URL (Export)"],
         ["Product", "77", "Tee", "physical", "T", "", "3", "20", "TRUE", ""],
         ["Variant", "501", "", "", "T-R", "Name=Color|Value=Red", "3", "18", "", ""],
         ["Image", "901", "", "", "", "", "", "", "", "https://b/1"],
         ["Product", "78", "Cap", "physical", "C", "", "1", "9", "FALSE", ""],
         ["Image", "902", "", "", "", "", "", "", "", "https://b/2"]],
        {"77": {"title": "Tee", "price": 18.0, "availability": "in stock"}}, {"77": ["https://b/1"]}, 1,
    ),
    "Wix: a variant's price of 0 is none": (
        [["handleId", "fieldType", "name", "productImageUrl", "collection", "price", "visible", "inventory",
          "productOptionName1"],
         ["P1", "Product", "Tee", "https://w/1;https://w/2", "Tees", "20", "true", "OutOfStock", "Color"],
         ["P2", "Product", "Cap", "", "", "3", "false", "InStock", ""],
         ["P1", "Variant", "", "", "", "0", "true", "5", "Color"]],
        {"P1": {"title": "Tee", "price": 20.0, "category": "Tees", "availability": "in stock"}},
        {"P1": ["https://w/1", "https://w/2"]}, 1,
    ),
    "Magento: what is only seen in a group belongs to it, and 2 is off": (
        [["sku", "product_type", "name", "price", "product_online", "visibility", "is_in_stock", "base_image",
          "configurable_variations"],
         ["T-R", "simple", "Tee red", "20.0000", "1", "Not Visible Individually", "1", "https://m/r", ""],
         ["T-B", "simple", "Tee blue", "5.0000", "2", "Not Visible Individually", "1", "https://m/b", ""],
         ["T", "configurable", "Tee", "", "1", "Catalog, Search", "1", "https://m/1",
          "sku=T-R,color=Red|sku=T-B,color=Blue"],
         ["X", "simple", "Off", "1", "2", "Catalog, Search", "1", "https://m/x", ""],
         ["Y", "simple", "Part", "1", "1", "Not Visible Individually", "1", "https://m/y", ""]],
        {"T": {"title": "Tee", "price": 20.0}}, {"T": ["https://m/1", "https://m/r"]}, 3,
    ),
    "OpenCart: names of columns say their language": (
        [["product_id", "name(en-gb)", "sku", "manufacturer", "image_name", "quantity", "price", "status"],
         ["5", "Lamp", "", "Lux", "https://o/1", "3", "29.9000", "true"],
         ["6", "Off", "", "", "", "3", "1", "false"]],
        {"5": {"title": "Lamp", "brand": "Lux", "price": 29.9}}, {"5": ["https://o/1"]}, 1,
    ),
    "PrestaShop: names of columns say their form": (
        [["Product ID", "Active (0/1)", "Name *", "Categories (x,y,z...)", "Price tax included",
          "Image URLs (x,y,z...)"],
         ["5", "1", "Lamp", "Home,Lamps", "29,90", "https://p/1,https://p/2"]],
        {"5": {"title": "Lamp", "price": 29.9, "category": "Home,Lamps"}}, {"5": ["https://p/1", "https://p/2"]}, 0,
    ),
    "Shopware: gross prices, and media beside a cover": (
        [["id", "parent_id", "media", "name", "active", "stock", "price_net", "price_gross", "cover_media_url"],
         ["p2", "p1", "", "", "1", "4", "", "", ""],
         ["p1", "", "https://w/2|https://w/3", "Jacket", "1", "0", "80", "99", "https://w/1"]],
        {"p1": {"title": "Jacket", "price": 99.0, "availability": "in stock"}},
        {"p1": ["https://w/1", "https://w/2", "https://w/3"]}, 0,
    ),
    "Etsy: options of listings": (
        [["TITLE", "PRICE", "CURRENCY_CODE", "QUANTITY", "MATERIALS", "IMAGE1", "IMAGE2", "VARIATION 1 NAME",
          "VARIATION 1 VALUES", "SKU"],
         ["Ring", "25.00", "EUR", "3", "gold", "https://e/1", "https://e/2", "Size", "S, M", "R"],
         ["Pin", "5", "EUR", "0", "", "https://e/3", "", "", "", ""]],
        {"R": {"title": "Ring", "price": 25.0, "currency": "EUR", "material": "gold", "size": "S, M"}},
        {"R": ["https://e/1", "https://e/2"]}, 1,
    ),
    "WooCommerce: variations before their product, by its SKU; one of them is not shown": (
        [["ID", "Type", "SKU", "Name", "Published", "In stock?", "Regular price", "Images", "Parent"],
         ["11", "variation", "t-r", "Tee - Red", "1", "backorder", "20", "https://t/r", "tee"],
         ["12", "variation", "t-b", "Tee - Blue", "0", "1", "5", "https://t/b", "tee"],
         ["10", "variable", "tee", "Tee", "1", "", "", "https://t/1", ""],
         ["21", "variation", "o-r", "Off - Red", "1", "1", "5", "", "off"],
         ["20", "variable", "off", "Off", "0", "1", "", "", ""]],
        {"10": {"title": "Tee", "price": 20.0, "availability": "backorder"}}, {"10": ["https://t/1", "https://t/r"]}, 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_one_item_a_product_and_only_what_customers_see(name: str, tmp_path: Path) -> None:
    rows, known, images, left_out = EXPORTS[name]
    items, done = imported(table(tmp_path / "export.csv", *rows))
    assert {item: {field: items[item].get(field) for field in known[item]} for item in items} == known
    assert {item: urls(meta) for item, meta in items.items()} == images
    assert done.left_out.total() == left_out == len((tmp_path / "out" / LEFT_OUT).read_text().splitlines())
    assert done.rows == len(rows) - 1


def test_no_cell_is_lost(tmp_path: Path) -> None:
    head = ["id", "title", "name", "google product category", "product type", "description", "short description",
            "brand", "vendor", "additional image link", "additional image link", "image link", "price", "regular price",
            "colour", "note", "note", ""]  # fmt: skip
    cells = ["7", "A title", "a name", "G > H", "P > Q", "long", "short", "Br", "Ve", "https://i/2", "https://i/3",
             "https://i/1", "8", "9", "red", "first", "second", "nameless"]  # fmt: skip
    items, done = imported(table(tmp_path / "t.tsv", head, cells, delimiter="\t"))
    said = json.dumps(items, ensure_ascii=False)
    assert not [cell for cell in cells if f'"{cell}"' not in said and f"{cell}.0" not in said]
    assert urls(items["7"]) == ["https://i/1", "https://i/2", "https://i/3"]
    assert (items["7"]["title"], items["7"]["price"]) == ("A title", 8.0)
    printed = "\n".join(done.columns)
    assert not [name for name in head if name not in printed]


def test_rows_with_other_fields_each_are_told_and_grouped(tmp_path: Path) -> None:
    rows = [
        {"id": "r", "title": "Rug", "price": 19.125},
        {"id": "a", "title": "Mug", "item_group_id": "G", "price": {"value": "12.99", "currency": "EUR"},
         "glaze": "matt"},
        {"id": "l", "title": "Lamp", "handle": "other"},
        {"id": "b", "title": "Mug", "item_group_id": "G", "price": "11.99 eur", "categories": ["Home", "Mugs"]},
        {"handle": "no-id", "title": "Without the column of IDs"},
    ]  # fmt: skip
    items, done = of_text(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert sorted(items) == ["G", "l", "r"]
    assert (items["r"]["price"], items["G"]["price"], items["G"]["currency"]) == (19.125, 11.99, "EUR")
    assert (items["G"]["category"], items["G"]["attributes"]["glaze"]) == ("Home > Mugs", "matt")
    assert done.left_out == {"no ID": 1}
    assert "item_group_id" in done.columns[0]
    assert "glaze" in done.columns[1]


def test_a_row_goes_on_with_no_product_that_could_not_be_read(tmp_path: Path) -> None:
    text = "Product ID,Title,Variant SKU,Image\n1,One,a,https://i/1\n2,Two,b,https://i/2,too many\n,,c,https://i/3\n"
    items, done = of_text(tmp_path / "t.csv", text)
    assert urls(items["1"]) == ["https://i/1"]
    assert done.left_out == {"5 cells, but 4 columns": 1, "no ID": 1}


@pytest.mark.parametrize("sale", ["0", "9.50", "12"])
def test_a_sale_that_saves_nothing_is_none(sale: str, tmp_path: Path) -> None:
    items, _ = of_text(tmp_path / "t.csv", f"id,title,price,sale price\n1,Mug,9.50,{sale}\n")
    assert "sale_price" not in items["1"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (19.125, (19.125, "")), (float("nan"), None), (True, None), ("12.99 eur", (12.99, "EUR")),
        ("RRP 12.99", (12.99, "")), ("A$5", (5.0, "AUD")), ("US$ 5", (5.0, "USD")), ("12,- €", (12.0, "EUR")),
        ({"amount": 5, "currencyCode": "SEK"}, (5.0, "SEK")), ({"amount": None}, None), ("1 299 Kč", (1299.0, "CZK")),
    ],
)  # fmt: skip
def test_prices_that_are_numbers_objects_or_among_words(written: Any, expected: tuple[float, str] | None) -> None:
    assert price(written) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("in_stock", "in stock"), ("https://schema.org/OutOfStock", "out of stock"), ("preorder", "preorder"),
        ("backorder", "backorder"), ("Sold out", "out of stock"), ("0", "out of stock"), ("", None),
    ],
)  # fmt: skip
def test_what_cannot_be_had_now_is_not_in_stock(said: str, expected: str | None, tmp_path: Path) -> None:
    items, _ = of_text(tmp_path / "t.csv", f"id,title,availability\n1,Mug,{said}\n")
    assert items["1"].get("availability") == expected


ATOM = """<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0">
<entry><id>tag:shop,1</id><g:id>1</g:id><title>Mug</title><g:title>Mug, red</g:title><link href="https://s/mug"/>
<summary>All <b>cotton</b> here</summary><g:price>5 EUR</g:price><g:image_link>https://m/1</g:image_link></entry>
<entry><g:id>2</g:id><title>Rug</title><summary><p>One</p><p>Two</p></summary></entry></feed>"""


def test_atom_s_own_names_do_not_mix_with_google_s(tmp_path: Path) -> None:
    items, _ = of_text(tmp_path / "feed.xml", ATOM)
    assert sorted(items) == ["1", "2"]
    mug = items["1"]
    assert (mug["title"], mug["link"], mug["description"]) == ("Mug, red", "https://s/mug", "All cotton here")
    assert mug["attributes"] == {"id of the feed": "tag:shop,1", "title of the feed": "Mug"}
    assert (items["2"]["title"], items["2"]["description"]) == ("Rug", "One Two")


@pytest.mark.parametrize("named", ["ISO-8859-1", "windows-1252", "UTF-8", "UTF-16"])
def test_a_feed_has_the_encoding_that_it_declares(named: str, tmp_path: Path) -> None:
    text = f'<?xml version="1.0" encoding="{named}"?><rss><item><id>1</id><title>Größe</title></item></rss>'
    items, _ = of_text(tmp_path / "feed.xml", text.encode(named))
    assert items["1"]["title"] == "Größe"


def test_a_feed_s_encoding_can_be_given_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    text = "<rss><item><id>1</id><title>Größe</title></item></rss>".encode("cp1252")
    assert of_text(tmp_path / "feed.xml", text, "cp1252")[0]["1"]["title"] == "Größe"
    for encoding in (None, "no-such-one"):
        with pytest.raises(UserError, match=r"feed\.xml cannot be read behind product 0"):
            of_text(tmp_path / "feed.xml", text, encoding)

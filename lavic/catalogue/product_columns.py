"""Which column of a product table holds what: found by the names that shop systems use, once for a whole file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lavic.errors import UserError

IMAGES = re.compile(
    r"(?:additional|hosted|base|internal|variant|cover|other|extra|gallery|featured)?(?:product)?(?:main)?"
    r"(?:image|img|picture|photo|media)s?(?:src|link|url|urls|links|name)?\d*"
)
FURTHER = re.compile(r"additional|variant|other|extra|gallery|media|internal")  # images that follow a product's own
OPTION = re.compile(
    r"(?:option|attribute|variation|productoption)(?:(\d+)(name|values?|choices)|(name|values?|choices)(\d+))"
)
VARIANT = re.compile(r"variant|variation|(?:product)?option(?:name|value|\d)")
GROUPING = {"handle", "urlhandle", "handleid"}  # IDs that all rows of a product repeat
NAMES = {  # what a column may be called, the likeliest first; compared without case, spaces, hyphens and underscores
    "id": (
        "parentasin", "asin", "handle", "urlhandle", "handleid", "productidnoneditable", "id", "productid", "sku",
        "itemid", "productsku", "variantsku", "articlenumber", "productnumber", "listingid", "offerid", "reference",
        "gtin", "ean",
    ),
    "group": ("itemgroupid", "parentid", "parent", "parentsku", "parentproductid", "productgroupid", "variantof"),
    "title": ("title", "name", "productname", "producttitle", "itemname", "displayname", "articlename"),
    "description": (
        "description", "bodyhtml", "body", "productdescription", "longdescription", "text", "shortdescription",
        "summary",
    ),
    "price": (
        "price", "variantprice", "regularprice", "productprice", "unitprice", "grossprice", "pricetaxincluded",
        "pricetaxincl", "pricegross", "pricevat", "finalprice",
    ),
    "sale_price": ("saleprice", "specialprice", "discountprice", "offerprice", "reducedprice"),
    "currency": ("currency", "currencycode", "pricecurrency"),
    "availability": ("availability", "instock", "isinstock", "stockstatus"),
    "stock": (
        "variantinventoryqty", "quantity", "qty", "stock", "stocklevel", "currentstock", "currentstocklevel",
        "inventory", "inventoryquantity", "variantinventoryquantity", "stockquantity",
    ),
    "brand": ("brand", "vendor", "manufacturer", "manufacturername", "brandname", "store", "producer"),
    "category": (
        "productcategory", "producttype", "category", "categories", "type", "googleproductcategory", "categorypath",
        "collection", "maincategory", "department",
    ),
    "color": ("color", "colour", "farbe", "couleur"),
    "size": ("size", "grosse", "größe", "taille"),
    "material": ("material", "materials", "fabric"),
    "link": ("link", "url", "producturl", "permalink", "productlink", "onlinestoreurl"),
    "status": ("status", "productstatus", "state"),
    "published": (
        "published", "visible", "active", "enabled", "productonline", "isactive", "isvisible",
        "productvisible", "visibility", "visibilityincatalog", "onlinestorepublished", "publishedononlinestore",
    ),
    "row_kind": ("item", "itemtype", "fieldtype", "rowtype"),
    "image_position": ("imageposition", "imageindex", "imagesortorder"),
    "variations": ("configurablevariations",),
}  # fmt: skip
REQUIRED = ("id", "title")


def plain(name: str) -> str:
    """Returns a column's name as it is compared."""
    return re.sub(r"[\W_]+", "", name.lower())


def bare(name: str) -> str:
    """Returns a column's name as it is compared, without notes behind it: `Image URLs (x,y,z...)`, `name(en-gb)`."""
    return plain(re.sub(r"\s*[(\[][^()\[\]]*[)\]]", "", name))


@dataclass
class Columns:
    """The columns of one file.

    Attributes:
        by_field: the columns of each field that has any, the likeliest first.
        options: pairs of columns that hold an option's name and its values.
        used: columns that became something.
        others: columns that are kept as attributes.
        groups: whether several rows of the file may be one product, wherever they stand.
        has_variants: whether some columns are of variants, so that a row may go on with the product before it.
    """

    by_field: dict[str, list[str]] = field(default_factory=dict)
    options: list[tuple[str, str]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    others: list[str] = field(default_factory=list)
    groups: bool = False
    has_variants: bool = False


def find_columns(names: Sequence[str], given: Mapping[str, str | Sequence[str]], file: Path, required: bool) -> Columns:
    """Finds what each column holds.

    Args:
        names: the columns.
        given: columns of fields that the user named.
        file: the table, for messages.
        required: whether it has to have the columns that were named, and those that no product goes without.

    Raises:
        UserError: a column that is required is not there.
    """
    by_plain = {name: plain(name) for name in names}
    by_bare = {name: bare(name) for name in names}
    found = {what: _named(possible, by_plain) or _named(possible, by_bare) for what, possible in NAMES.items()}
    found["images"] = [n for n in names if IMAGES.fullmatch(by_plain[n]) or IMAGES.fullmatch(by_bare[n])]
    found["images"].sort(key=lambda name: bool(FURTHER.match(by_bare[name])))
    has_variants = any(VARIANT.match(by_plain[name]) for name in names)
    if not has_variants:  # a handle is then one name among others
        found["id"].sort(key=lambda name: by_plain[name] in GROUPING)
    for what, named in given.items():
        wanted = [named] if isinstance(named, str) else list(named)
        if required and (missing := [name for name in wanted if name not in names]):
            raise UserError(
                f"{file} has no column '{missing[0]}' for the {what}; its columns are {', '.join(names)[:300]}."
            )
        found[what] = [name for name in wanted if name in names]
    for what in REQUIRED:
        if required and not found[what]:
            raise UserError(
                f"No column of {file} looks like the {what} ({', '.join(names)[:300]}); name it with --{what} COLUMN."
            )
    found["id"] = found["id"][:1]  # one for a whole file
    columns = Columns({what: list(dict.fromkeys(chosen)) for what, chosen in found.items()})
    pairs: dict[str, dict[str, str]] = {}
    for name in names:
        if match := OPTION.fullmatch(by_bare[name]) or OPTION.fullmatch(by_plain[name].removesuffix("s")):
            number, part = match[1] or match[4], match[2] or match[3]
            pairs.setdefault(number, {})["name" if part == "name" else "value"] = name
    columns.options = [(pair["name"], pair["value"]) for pair in pairs.values() if len(pair) == 2]
    columns.used = {name for chosen in columns.by_field.values() for name in chosen}
    columns.used |= {name for pair in columns.options for name in pair}
    columns.others = [name for name in names if name not in columns.used]
    columns.has_variants = has_variants
    columns.groups = bool(columns.by_field["group"] or columns.by_field["variations"]) or (
        has_variants and any(by_plain[name] in GROUPING for name in columns.by_field["id"])
    )
    return columns


def _named(possible: Sequence[str], names: Mapping[str, str]) -> list[str]:
    return [name for known in possible for name in names if names[name] == known]

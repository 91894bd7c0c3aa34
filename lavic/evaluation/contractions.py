"""English contractions that VQA's evaluators write out: `dont` is read as `don't`.

The evaluators have a table of wrong spellings. It follows one rule, which stands here instead: each right spelling is
found with any one of its apostrophes missing. VizWiz's table has typographic apostrophes (U+2019) in most rows.
"""

from collections.abc import Iterable

_RIGHT = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll "
    "that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've "
    "weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've "
    "why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're "
    "you've"
)
_STRAIGHT_AT_VIZWIZ = {"ain't", "aren't", "can't", "could've", "couldn't", "we've", "where's", "who've"}


def _table(right: Iterable[str], apostrophe: str) -> dict[str, str]:
    return {
        word[:place] + word[place + 1 :]: word
        for word in right
        for place, letter in enumerate(word)
        if letter == apostrophe
    }


def _vizwiz() -> dict[str, str]:
    curled = [word.replace("'", "’") for word in _RIGHT.split() if word not in _STRAIGHT_AT_VIZWIZ]
    table = _table(_STRAIGHT_AT_VIZWIZ, "'") | _table(curled, "’") | {"somebody’d": "somebodyd"}
    for wrong in ("couldn’tve", "hadn’tve"):  # these two have a straight one, before a curled one
        table[wrong.replace("’", "'")] = table.pop(wrong)
    return table


VQA: dict[str, str] = _table(_RIGHT.split(), "'") | {
    "somebody'd": "somebodyd"
}  # the last one the wrong way round, as it is
VIZWIZ: dict[str, str] = _vizwiz()

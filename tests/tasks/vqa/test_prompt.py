"""The prompt's parts, their order, and what is left out of it."""

from lavic.tasks.vqa.prompt import Question, question_turn

ASKED = Question(0, "1.jpg", "what is it", "a cat", True, "A cat, painted.")


def test_instruction_image_description_question_with_a_newline_between() -> None:
    assert question_turn(ASKED, "Answer.").written() == "Answer.\n<image>\nA cat, painted.\nwhat is it"
    assert question_turn(ASKED, "Answer.", image=False).written() == "Answer.\nA cat, painted.\nwhat is it"
    assert question_turn(ASKED, "Answer.", description=False).written() == "Answer.\n<image>\nwhat is it"
    assert question_turn(ASKED, "").written() == "<image>\nA cat, painted.\nwhat is it"
    assert question_turn(ASKED).written().startswith("You are an expert art historian.")


def test_people_s_words_stay_and_only_the_image_is_one() -> None:
    asked = Question(0, "1.jpg", "where is <image> here", "x", True, "<image> A cat")
    turn = question_turn(asked, "Look <image>.")
    assert (turn.images, turn.place) == (1, len("Look <image>.\n"))
    assert turn.text == "Look <image>.\n\n<image> A cat\nwhere is <image> here"

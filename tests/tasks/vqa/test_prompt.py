"""The prompt's parts, their order, and what is left out of it."""

from lavic.tasks.vqa.prompt import Question, question_prompt

ASKED = Question(0, "1.jpg", "what is it", "a cat", True, "A cat, painted.")


def test_instruction_image_description_question_with_a_newline_between() -> None:
    assert question_prompt(ASKED, "Answer.") == "Answer.\n<image>\nA cat, painted.\nwhat is it"
    assert question_prompt(ASKED, "Answer.", image=False) == "Answer.\nA cat, painted.\nwhat is it"
    assert question_prompt(ASKED, "Answer.", description=False) == "Answer.\n<image>\nwhat is it"
    assert question_prompt(ASKED, "") == "<image>\nA cat, painted.\nwhat is it"
    assert question_prompt(ASKED).startswith("You are an expert art historian.")


def test_a_users_text_is_no_image() -> None:
    asked = Question(0, "1.jpg", "where is <image> here", "x", True, "<image> A cat")
    text = question_prompt(asked, "Look <image>.", cleaned=lambda part: part.replace("<image>", ""))
    assert text == "Look .\n<image>\nA cat\nwhere is  here"

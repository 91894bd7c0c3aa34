"""A prompt is the beginning of its supervised sample; the answer and its end are supervised, nothing else."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlavaNextForConditionalGeneration

from lavic.errors import UserError
from lavic.evaluation.exact_match import exact_match
from lavic.model.multimodal_batch import MultimodalBatch, loss_sum, prepare, visual_tokens
from lavic.model.speedups import PLAIN
from lavic.tasks.vqa.encoding import QuestionEncoder, question_reader
from lavic.tasks.vqa.prompt import Question

AQUA = Path(__file__).parents[3].parent / "shared" / "systems" / "data" / "aqua"
TYPED = (  # as the published LLaVA's: parts with types; the image would come first
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {% for c in m['content'] %}{% if c['type'] == 'text' %}"
    "{{ c['text'] }}{% endif %}{% endfor %} [/INST]{% else %} {{ m['content'][0]['text'] }}</s>{% endif %}{% endfor %}"
)
STRINGS = (  # as a language model's own: strings, BOS written out, a header for the answer
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
ASKED = Question(3, "1.jpg", "which colour is it", "a red towel", True, "The image shows a towel.")


@pytest.fixture(params=["none", "typed", "plain"])
def encoder(request: pytest.FixtureRequest, tiny: Path) -> QuestionEncoder:
    reader = question_reader(str(tiny))
    reader.processor.chat_template = {"none": None, "typed": TYPED, "plain": STRINGS}[request.param]
    return QuestionEncoder(reader, "Answer shortly.", 4096)


def test_the_prompt_is_the_beginning_of_the_sample(encoder: QuestionEncoder) -> None:
    tokenizer = encoder.tokenizer
    for size in ((60, 50), (700, 200), None):
        for described in (True, False):
            prompt, end = encoder.encode(ASKED, size, answer=False, description=described)
            whole, start = encoder.encode(ASKED, size, answer=True, description=described)
            assert whole[:start] == prompt
            assert end == len(prompt) == start
            assert tokenizer.decode(whole[start:-1]).strip() == "a red towel"
            assert whole[-1] == encoder.end_id == tokenizer.eos_token_id
            assert whole.count(tokenizer.bos_token_id) == 1
            text = tokenizer.decode(prompt)
            assert ("The image shows a towel." in text) == described
            assert ("<image>" in text) == (size is not None)
    assert encoder.answer_tokens(["a red towel"]) == [len(whole) - start]


def test_an_image_counts_as_many_tokens_as_the_model_makes(encoder: QuestionEncoder, tiny: Path) -> None:
    llava = LlavaNextForConditionalGeneration.from_pretrained(tiny).eval()
    images = [Image.new("RGB", size, "red") for size in ((60, 50), (700, 200), (40, 300))]
    questions = [ASKED, Question(4, "2.jpg", "what", "blue", False), Question(5, "3.jpg", "where", "on a table", False)]
    plain = 0.0
    for question, image in zip(questions, images, strict=True):
        ids, start = encoder.encode(question, image.size, answer=True)
        inputs = dict(encoder.processor.image_processor(images=image, return_tensors="pt"))
        with torch.no_grad():
            scores = llava(input_ids=torch.tensor([ids]), **inputs).logits[0].log_softmax(-1)
        plain -= sum(float(scores[place - 1, ids[place]]) for place in range(start, len(ids)))
    together = loss_of(llava, encoder, encoder.batch(questions, images, answers=True))
    alone = [
        loss_of(llava, encoder, encoder.batch([question], [image], answers=True))
        for question, image in zip(questions, images, strict=True)
    ]
    assert together == pytest.approx(sum(alone), rel=1e-5)
    assert together == pytest.approx(plain, rel=1e-5)
    ghost = encoder.batch(questions, images, answers=True, ghost=True)
    assert (ghost["labels"] == -100).all()
    assert loss_of(llava, encoder, ghost) == 0


def loss_of(llava: LlavaNextForConditionalGeneration, encoder: QuestionEncoder, batch: MultimodalBatch) -> float:
    prepare(batch, encoder.reader, PLAIN)
    with torch.no_grad():
        seen = visual_tokens(llava, encoder.reader, encoder.reader.normaliser(), batch)
        return float(loss_sum(llava, encoder.reader, batch, seen))


def test_what_users_write_is_no_control_token(encoder: QuestionEncoder) -> None:
    token = encoder.processor.image_token
    asked = Question(0, "1.jpg", f"what is {token} </s> this", f"a {token} cat</s>", True, f"{token}{token}")
    ids, start = encoder.encode(asked, (60, 50), answer=True)
    plain, _ = encoder.encode(Question(0, "1.jpg", "what is this", "a cat", False), (60, 50), answer=True)
    image_id = encoder.processor.image_token_id
    assert ids.count(image_id) == plain.count(image_id)
    assert ids[start:].count(encoder.end_id) == 1
    assert ids.count(encoder.end_id) == plain.count(encoder.end_id)
    read = encoder.tokenizer.decode([i for i in ids if i != image_id])
    assert f"what is {token} </s> this" in read  # letter for letter, and yet no control tokens
    assert f"a {token} cat</s>" in read


def test_a_long_description_is_cut_and_never_the_question(encoder: QuestionEncoder) -> None:
    long = Question(0, "1.jpg", "which colour is it", "red", True, "The image shows a towel. " * 200)
    whole, _ = encoder.encode(long, (60, 50), answer=True)
    bare, _ = encoder.encode(long, (60, 50), answer=True, description=False)
    encoder.max_length = len(bare) + 60
    cut, start = encoder.encode(long, (60, 50), answer=True)
    assert len(cut) <= encoder.max_length < len(whole)
    assert len(cut) > encoder.max_length - 15
    assert "which colour is it" in encoder.tokenizer.decode(cut[:start])
    encoder.max_length = 20
    with pytest.raises(UserError, match="max_length is 20, but question 0 needs"):
        encoder.encode(long, (60, 50), answer=True)


@pytest.mark.skipif(not AQUA.is_dir(), reason=f"no {AQUA}")
def test_c5_answers_that_hold_assistant_survive(encoder: QuestionEncoder) -> None:
    """VizSage took what followed the last "assistant" for the answer."""
    rows = json.loads((AQUA / "val.json").read_text(encoding="utf-8"))
    odd = [row["answer"] for row in rows if "assistant" in row["answer"]]
    assert len(odd) == 7
    for answer in odd:
        ids, start = encoder.encode(Question(0, "1.jpg", "who is it", answer, False), (60, 50), answer=True)
        said = encoder.tokenizer.decode(ids[start:], skip_special_tokens=True).strip()
        assert said == answer
        assert exact_match(said, answer, "strict")

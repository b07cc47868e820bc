import gzip

import pytest

from fluxtionary.training.prompts import PromptError, read_prompts, split_prompts

TWO = ["a red circle", "ein Käse, 奶酪"]
FILES = {
    "a.txt": "a red circle\n\n  ein Käse, 奶酪  \n",
    "crlf.txt": "\ufeffa red circle\r\n\r\nein Käse, 奶酪\r\n",
    "mac.txt": "a red circle\rein Käse, 奶酪",
    "a.csv": 'url,caption\nx,a red circle\n\ny,"ein Käse, 奶酪"\nz,\n',
    "crlf.csv": '\ufeffPrompt,url\r\na red circle,x\r\n"ein Käse, 奶酪",y\r\n',
    "first.csv": 'text,prompt\nno,a red circle\nno,"ein Käse, 奶酪"\n',
    "a.tsv": "url\ttext\nx\ta red circle\ny\tein Käse, 奶酪\n",
    "a.jsonl": '{"id": 1, "text": "a red circle"}\n\n{"id": 2, "text": "ein K\\u00e4se, 奶酪"}\n{"text": null}',
    "plain.ndjson": '"a red circle"\r\n"ein Käse, 奶酪"\r\n',
    "a.json": '["a red circle", "", "ein Käse, 奶酪"]',
    "objects.json": '\ufeff[{"caption": "a red circle"},\n {"caption": "ein Käse, 奶酪", "more": 1}]',
    "LOUD.TXT": "a red circle\nein Käse, 奶酪",
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_its_prompts(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name].encode())
    assert read_prompts(path) == TWO
    zipped = tmp_path / f"{name}.gz"
    zipped.write_bytes(gzip.compress(FILES[name].encode(), mtime=0))
    assert read_prompts(zipped) == TWO


def test_quoted_fields_keep_their_lines_quotes_and_commas(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'prompt,n\r\n"a ""red"" circle,\r\non tan",1\r\n"  a ring",2\r\n')
    assert read_prompts(path) == ['a "red" circle,\r\non tan', "a ring"]


def test_separators_of_unicode_do_not_end_a_prompt(tmp_path):
    text = "a red\u2028circle\x0bon tan\x85"
    (tmp_path / "a.txt").write_text(text, newline="")
    (tmp_path / "a.jsonl").write_text(f'"{text.replace(chr(11), " ")}"')
    assert len(read_prompts(tmp_path / "a.txt")) == len(read_prompts(tmp_path / "a.jsonl")) == 1


def test_a_column_can_be_named(tmp_path):
    csv, jsonl = tmp_path / "a.csv", tmp_path / "a.jsonl"
    csv.write_text("prompt,short\na large red circle,circle\n")
    jsonl.write_text('{"prompt": "a large red circle", "short": "circle"}\n')
    assert read_prompts(csv, "short") == read_prompts(jsonl, "short") == ["circle"]
    assert read_prompts(csv) == read_prompts(jsonl) == ["a large red circle"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b"", "expected prompts, found none"),
        ("a.txt", b"\n \r\n", "expected prompts, found none"),
        ("a.csv", b"prompt\n\n", "expected prompts, found none"),
        ("a.json", b"[]", "expected prompts, found none"),
        ("a.jsonl", b"", "expected prompts, found none"),
        ("a.parquet", b"PAR1", "expected .txt, .csv, .tsv, .jsonl, .ndjson, .json.*found .parquet"),
        ("noending", b"a ring", "found no ending"),
        ("a.txt", b"a ring\nK\xe4se\n", "line 2: expected UTF-8, found another encoding"),
        ("a.txt", "a ring".encode("utf-16"), "line 1: expected UTF-8"),
        ("a.txt", "x\na ring".encode("utf-16-le"), "line 1: expected UTF-8 text, found a zero byte"),
        ("a.txt.gz", b"a ring", "expected a whole gzip file"),
        ("a.txt.gz", gzip.compress(b"a ring" * 99, mtime=0)[:-9], "expected a whole gzip file"),
        ("a.csv", b"url,n\nx,1\n", "column names with prompt, caption or text, found url, n: .*--column"),
        ("a.csv", b"text,TEXT\nx,1\n", "expected one 'text', found 2"),
        ("a.csv", b'prompt,n\n"a\nb",1\nc,2,3\n', "line 4: expected 2 columns as in the first row, found 3"),
        ("a.csv", b'prompt,n\na,1\n"b" c,1\n', "line 3:.*quotes"),
        ("a.csv", b'prompt,n\na,1\n"b\n\nc,1\n', "line 3: unexpected end of data"),
        ("a.tsv", b"prompt\tn\na\n", "line 2: expected 2 columns as in the first row, found 1"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: expected JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"prompt": "b"}\n', "line 2: expected 'text', found prompt"),
        ("a.jsonl", b'{"text": "a"}\n"b"\n', "line 2: expected an object with 'text', found a string"),
        ("a.jsonl", b'"a"\n{"text": "b"}\n', "line 2: expected a string, as before, found an object"),
        ("a.jsonl", b'{"text": 3}\n', "line 1: expected text, found 3"),
        ("a.jsonl", b"[1]\n", "line 1: expected a string or an object, found a list"),
        ("a.jsonl", b'{"url": "x"}\n', "line 1: expected an object with prompt, caption or text, found url"),
        ("a.json", b'{"text": "a"}', "expected a list of prompts, found an object"),
        ("a.json", b'{"text": "a"}\n{"text": "b"}', "line 2: expected JSON: Extra data.*named .jsonl"),
        ("a.json", b'["a",\n\n b]', "line 3: expected JSON"),
        ("a.json", b'["a", 3]', "item 2: expected a string, as before, found 3"),
        ("a.json", b"[" * 100_000, "expected JSON"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, name, data, words):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(PromptError, match=words) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)


def test_columns_and_files_that_are_not_there_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,n\na,1\n")
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "a.jsonl").write_text('"a"\n')
    with pytest.raises(PromptError, match="column 'Caption', found prompt, n"):
        read_prompts(tmp_path / "a.csv", "Caption")
    with pytest.raises(PromptError, match="no columns, found column 'text'"):
        read_prompts(tmp_path / "a.txt", "text")
    with pytest.raises(PromptError, match="line 1: expected an object with 'text', found a string"):
        read_prompts(tmp_path / "a.jsonl", "text")
    with pytest.raises(PromptError, match="no.txt: expected a file of prompts, found none"):
        read_prompts(tmp_path / "no.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(PromptError, match="found a folder"):
        read_prompts(tmp_path / "folder.txt")


def test_a_prompt_always_falls_on_the_same_side():
    prompts = [f"a circle of size {i}" for i in range(4000)]
    train, held_out = split_prompts(prompts, 0.1)
    assert 320 < len(held_out) < 480 and sorted(train + held_out) == sorted(prompts)
    again = split_prompts([*reversed(prompts), *prompts[:50]], 0.1)
    assert set(again[0]) == set(train) and set(again[1]) == set(held_out)
    assert set(held_out) < set(split_prompts(prompts, 0.2)[1])
    assert train == [prompt for prompt in prompts if prompt in set(train)]


def test_the_split_is_the_same_in_every_release():
    assert split_prompts(["a red circle", "a ring", "a cross", "a star"], 0.5) == (
        ["a red circle", "a cross", "a star"],
        ["a ring"],
    )


def test_shares_at_the_ends_and_beyond():
    assert split_prompts(["a", "b"], 0) == (["a", "b"], [])
    assert split_prompts(["a", "b"], 1) == ([], ["a", "b"])
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split_prompts(["a"], share)


def test_a_prompt_falls_on_one_side_however_it_is_spaced():
    prompts = [f"a picture of {i}" for i in range(200)]
    spaced = [prompt.replace(" ", "  ") for prompt in prompts]
    for side, other in zip(split_prompts(prompts, 0.3), split_prompts(spaced, 0.3), strict=True):
        assert [" ".join(prompt.split()) for prompt in other] == side and side


def test_half_a_letter_is_named(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a \\ud800 b"}\n')
    with pytest.raises(PromptError, match=r"half of one in 'a \\ud800 b'"):
        read_prompts(path)

"""What the reading nodes say of runs in a real ComfyUI, against what a foreign patch saw of the same runs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fluxtionary.demo import files
from fluxtionary.demo.measure import measure
from fluxtionary.demo.scenes import BACKGROUNDS, COLORS
from fluxtionary.dictionaries import load_dictionary

from .comfy_server import NodeError
from .flow import CAPTION, DEMO, Flow
from .watching import IMAGE, calls

SIGMAS = (1.0, 0.75, 0.5, 0.25)
MEASURES = ("activation", "peak", "area")


@pytest.fixture(scope="module")
def dictionary():
    return load_dictionary(files.DICTIONARY)


def tap(flow, model=None, dictionary=DEMO, **options):
    """A tapped model and its capture."""
    if dictionary is not None:
        options["dictionary"] = flow.add("FluxtionaryLoadDictionary", dictionary=dictionary)
    node = flow.add("FluxtionaryTap", model=model or flow.model, **options)[0]
    return [node, 0], [node, 1]


def read(flow, latent, capture, **options):
    settings = {"by": "activation", "count": 10_000} | options
    return flow.add("FluxtionaryReadFeatures", latent=latent, capture=capture, **settings)


def heat(flow, latent, capture, feature, **options):
    """The picture and the mask of a heat map, saved."""
    node = flow.add("FluxtionaryFeatureHeatMap", latent=latent, capture=capture, feature=feature, **options)[0]
    mask = flow.add("MaskToImage", mask=[node, 1])
    return [flow.add("SaveImage", images=one, filename_prefix="map") for one in ([node, 0], mask)]


def found(outputs, node):
    """The JSON of a Read Features, as API users get it from the history."""
    (one,) = outputs[node[0]]["features"]
    return one


def saved(comfy, outputs, node):
    """All pictures of a SaveImage: `[n, h, w, 3]` in [0, 1]."""
    files_ = [comfy.file(place) for place in outputs[node[0]]["images"]]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) / 255 for file in files_])


def codes(dictionary, seen, number=0, pictures=slice(None)):
    """Dense codes `[rows, tokens, features]` of the picture's tokens in a call, of the rows of one conditioning."""
    chunks = seen["cond_or_uncond"].tolist()
    rows = seen["img"].unflatten(0, (len(chunks), -1))[chunks.index(number)][pictures, IMAGE.start :]
    return dictionary.encode(rows).dense(dictionary.n_features).double()


def agrees(answer, all_codes, then=None):
    """A JSON's features against dense codes `[..., features]`; `then` are those of another run, to be taken off."""

    def measures(dense):
        flat = dense.flatten(0, -2)
        peak = flat.gather(0, flat.abs().argmax(0)[None])[0]
        return flat.mean(0), peak, (flat != 0).double().mean(0)

    expected = measures(all_codes)
    if then is not None:
        expected = tuple(one - other for one, other in zip(expected, measures(then), strict=True))
    listed = answer["features"]
    assert listed and {one["feature"] for one in listed} == set(expected[0].nonzero()[:, 0].tolist())
    for name, values in zip(MEASURES, expected, strict=True):
        mine = torch.tensor([one[name] for one in listed], dtype=torch.float64)
        theirs = values[[one["feature"] for one in listed]]
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=2e-3), (name, float((mine - theirs).abs().max()))
    order = [abs(one[answer["by"]]) for one in listed]
    assert order == sorted(order, reverse=True)


def cached(comfy, prompt):
    entry = comfy.wait(prompt)
    return set(dict(entry["status"]["messages"])["execution_cached"]["nodes"]), entry["outputs"]


def test_what_is_read_is_what_went_through_the_block(comfy, dictionary):
    """Four steps: all of them, a part, and each alone, in all measures."""
    flow = Flow()
    model, capture = tap(flow, flow.watch(flow.model, "read"))
    latent = flow.sample(model)
    views = [{"by": name} for name in MEASURES]
    views += [{"first_step": 1, "last_step": 2}, *({"first_step": i, "last_step": i} for i in range(4))]
    nodes = [read(flow, latent, capture, **view) for view in views]
    outputs = comfy.run(flow)
    seen = calls(comfy, "read")
    assert [float(call["sigma"]) for call in seen] == pytest.approx(SIGMAS)
    own = torch.stack([codes(dictionary, call)[0] for call in seen])
    for node, view in zip(nodes, views, strict=True):
        part = own[view.get("first_step", 0) : view.get("last_step", 3) + 1]
        answer = found(outputs, node)
        agrees(answer, part)
        assert answer["site"] == "double.1.img" and answer["by"] == view.get("by", "activation")
        assert answer["run"] == {"steps": 4, "sigmas": pytest.approx([*SIGMAS, 0])}
        assert answer["dictionary"] == {"model": dictionary.model, "kind": "sae", "n_features": 1536}
        assert answer["fit"]["tokens"] == 256 and answer["fit"]["l0"] == 16 and 0 < answer["fit"]["fvu"] < 0.5
        assert answer["warnings"] == [] and not answer["difference"]
        for one in answer["features"]:
            assert one["natural"] == pytest.approx(float(dictionary.natural[one["feature"]]))
            at = view.get("first_step", 0) + int(part[..., one["feature"]].abs().amax(1).argmax())
            length = float(dictionary.direction(one["feature"]).norm())
            strength = one["peak"] * length / dictionary.scale.at(SIGMAS[at])
            assert one["strength"] == pytest.approx(strength, rel=1e-3)
    text = outputs[nodes[0][0]]["text"][0]
    assert text.startswith("double.1.img: fvu 0.") and "4 model calls" in text
    lines = text.splitlines()
    assert lines[-1].split()[0] == f"#{found(outputs, nodes[0])['features'][-1]['feature']}"
    assert "feature" in text and "natural" in text and len({len(line) for line in lines[-5:]}) == 1


def test_what_the_outputs_carry(comfy):
    """The latent as it came, the numbers one by one, text and JSON as in the history."""
    flow = Flow()
    model, capture = tap(flow)
    latent = flow.sample(model)
    node = read(flow, latent, capture, count=3)[0]
    kept = [flow.save(latent, "given"), flow.save([node, 0], "passed")]
    shown = [flow.add("PreviewAny", source=[node, output]) for output in (1, 2, 3)]
    outputs = comfy.run(flow)
    assert torch.equal(*(comfy.latent(outputs, one) for one in kept))
    answer = found(outputs, [node])
    numbers, text, as_json = (outputs[one[0]]["text"] for one in shown)
    assert [int(number) for number in numbers] == [one["feature"] for one in answer["features"]]
    assert len(numbers) == 3
    assert text == outputs[node]["text"] and json.loads(as_json[0]) == answer


def test_a_batch_with_cfg_is_read_by_rows_and_pictures(comfy, dictionary):
    flow = Flow()
    model, capture = tap(flow, flow.watch(flow.model, "read-batch"), rows="both")
    latent = flow.sample(model, latent=flow.empty(3), cfg=3.0)
    views = [{"rows": rows, "picture": picture} for rows in ("cond", "uncond") for picture in (-1, 0, 2)]
    nodes = [read(flow, latent, capture, **view) for view in views]
    outputs = comfy.run(flow)
    seen = calls(comfy, "read-batch")
    for node, view in zip(nodes, views, strict=True):
        chosen = slice(None) if view["picture"] < 0 else slice(view["picture"], view["picture"] + 1)
        number = int(view["rows"] == "uncond")
        agrees(found(outputs, node), torch.stack([codes(dictionary, call, number, chosen) for call in seen]))
    asked = found(outputs, nodes[1])["view"]
    assert asked == {"picture": 0, "rows": "cond", "first_step": 0, "last_step": 3, "masked": False}


def test_a_mask_chooses_the_part_of_the_picture(comfy, dictionary, mask_file):
    flow = Flow()
    model, capture = tap(flow, flow.watch(flow.model, "read-mask"))
    node = read(flow, flow.sample(model), capture, mask=flow.mask(mask_file))
    answer = found(comfy.run(flow), node)
    own = torch.stack([codes(dictionary, call)[0] for call in calls(comfy, "read-mask")])
    left = torch.zeros(8, 8)
    left[:, :4] = 1
    agrees(answer, own[:, left.flatten() > 0])
    assert answer["view"]["masked"]


def test_what_differs_from_another_run(comfy, dictionary):
    flow = Flow()
    model, capture = tap(flow, flow.watch(flow.model, "read-both"))
    one = flow.sample(model, caption="a red circle")
    other = flow.sample(model, caption="a blue square")
    nodes = [
        read(flow, one, capture, against=capture, against_latent=other),
        read(flow, other, capture, against=capture, against_latent=one),
        read(flow, one, capture, against=capture, against_latent=one),
    ]
    lone = [read(flow, latent, capture) for latent in (one, other)]
    outputs = comfy.run(flow)
    seen = [torch.stack([codes(dictionary, call)[0] for call in part]) for part in halves(calls(comfy, "read-both"))]
    answers = [found(outputs, node) for node in lone]
    if answers[0]["features"][0]["feature"] not in active(seen[0]) or not close(answers[0], seen[0]):
        seen.reverse()  # the host chooses which sampler comes first
    agrees(answers[0], seen[0])
    agrees(answers[1], seen[1])
    there, back, nothing = (found(outputs, node) for node in nodes)
    assert there["difference"] and nothing["features"] == []
    assert "no difference" in outputs[nodes[2][0]]["text"][0]
    agrees(there, seen[0], then=seen[1])
    by_feature = {one["feature"]: one for one in back["features"]}
    for one in there["features"]:
        assert one["strength"] is None
        assert all(one[name] == pytest.approx(-by_feature[one["feature"]][name]) for name in MEASURES)


def halves(seen):
    return seen[: len(seen) // 2], seen[len(seen) // 2 :]


def active(own):
    return set(own.flatten(0, -2).abs().sum(0).nonzero()[:, 0].tolist())


def close(answer, own):
    top = answer["features"][0]
    return abs(float(own[..., top["feature"]].mean()) - top["activation"]) < 2e-3


def test_two_samplers_on_one_tap_are_two_runs(comfy, dictionary):
    """One Tap, two captions: each Read gives what a Tap of its own gives."""

    def build(flow, caption, tapped=None):
        model, capture = tapped or tap(flow)
        return read(flow, flow.sample(model, caption=caption), capture)

    captions = "a red circle", "a blue square"
    alone = []
    for caption in captions:
        flow = Flow()
        node = build(flow, caption)
        alone.append(found(comfy.run(flow), node))
    flow = Flow()
    shared = tap(flow)
    nodes = [build(flow, caption, shared) for caption in captions]
    outputs = comfy.run(flow)
    assert [found(outputs, node) for node in nodes] == alone
    assert alone[0]["features"] != alone[1]["features"]


def test_two_equal_taps_have_two_captures(comfy):
    """The second one's sampler is not the first one's, though everything on them is the same."""
    flow = Flow()
    (model, capture), (_, other) = tap(flow), tap(flow)
    latent = flow.sample(model)
    good = read(flow, latent, capture)
    assert found(comfy.run(flow), good)["features"]
    read(flow, latent, other)
    with pytest.raises(NodeError, match="this Tap has seen no sampling run"):
        comfy.run(flow)


def test_a_changed_widget_reads_again_and_samples_nothing(comfy):
    flow = Flow()
    model, capture = tap(flow)
    latent = flow.sample(model, seed=123)
    node = read(flow, latent, capture, count=5)
    first = found(comfy.run(flow), node)
    before = comfy.log()

    same, outputs = cached(comfy, comfy.queue(flow.nodes))
    assert same == set(flow.nodes) and found(outputs, node) == first  # nothing is computed anew, and still said

    flow.nodes[node[0]]["inputs"] |= {"by": "peak", "count": 3}
    changed, outputs = cached(comfy, comfy.queue(flow.nodes))
    assert changed == set(flow.nodes) - {node[0]}
    answer = found(outputs, node)
    assert len(answer["features"]) == 3 and answer["by"] == "peak" and answer["features"] != first["features"][:3]
    assert "Prompt executed" in comfy.log()[len(before) :]

    flow.nodes[latent[0]]["inputs"]["seed"] = 124
    resampled, outputs = cached(comfy, comfy.queue(flow.nodes))
    assert resampled == set(flow.nodes) - {node[0], latent[0]}
    assert found(outputs, node)["features"] != answer["features"]

    flow.nodes[latent[0]]["inputs"]["seed"] = 123
    again = found(comfy.run(flow), node)
    assert again == answer


def area(flow):
    """A caption for the right three quarters of the picture, beside one for all of it."""
    part = flow.add(
        "ConditioningSetArea",
        conditioning=flow.text("a red circle"),
        **{"width": 96, "height": 128, "x": 32, "y": 0, "strength": 1.0},
    )
    return flow.add("ConditioningCombine", conditioning_1=part, conditioning_2=flow.text(CAPTION))


def area_maps(dictionary, seen, feature, number=0):
    """A feature on the picture `[8, 8]`, what overlaps averaged, over all calls of a role."""
    steps = {}
    for call in seen:
        if number in call["cond_or_uncond"].tolist():
            steps.setdefault(float(call["sigma"]), []).append(codes(dictionary, call, number)[0, :, feature])
    maps = []
    for tiles in steps.values():
        total, count = torch.zeros(8, 8, dtype=torch.float64), torch.zeros(8, 8)
        for tile in tiles:
            left = 8 - len(tile) // 8
            total[:, left:] += tile.reshape(8, -1)
            count[:, left:] += 1
        maps.append(total / count)
    return torch.stack(maps)


def test_areas_are_read_and_drawn_where_they_lie(comfy, dictionary):
    """Each token of each call counts; a map has them in their places. The mask is 8 bit, as pictures are saved."""
    flow = Flow()
    model, capture = tap(flow, flow.watch(flow.model, "read-area"))
    latent = flow.sample(model, positive=area(flow), cfg=3.0)
    node = read(flow, latent, capture)
    outputs = comfy.run(flow)
    seen = calls(comfy, "read-area")
    own = torch.cat([codes(dictionary, call).flatten(0, 1) for call in seen if 0 in call["cond_or_uncond"].tolist()])
    answer = found(outputs, node)
    agrees(answer, own)
    feature = answer["features"][0]["feature"]
    settings = {"threshold": 0.0, "smooth": False}
    _, average = heat(flow, latent, capture, feature, **settings)
    _, each = heat(flow, latent, capture, feature, steps="each", **settings)
    outputs = comfy.run(flow)
    maps = area_maps(dictionary, calls(comfy, "read-area"), feature)
    for node, expected in ((average, maps.mean(0, keepdim=True)), (each, maps)):
        masks = saved(comfy, outputs, node)[..., 0]
        assert masks.shape == (len(expected), 128, 128)
        tokens = masks[:, 8::16, 8::16]
        assert np.allclose(tokens, (expected / expected.max()).numpy(), atol=2 / 255)
        assert np.array_equal(masks, tokens.repeat(16, 1).repeat(16, 2))


def test_map_sizes_follow_the_image_and_batches_the_pictures(comfy):
    flow = Flow()
    model, capture = tap(flow)
    latent = flow.sample(model, latent=flow.empty(2, 136, 120))
    image = flow.add("EmptyImage", width=272, height=240, batch_size=1, color=0x808080)
    cases = {
        (2, 120, 136): {},
        (1, 120, 136): {"picture": 1},
        (8, 120, 136): {"steps": "each"},
        (2, 240, 272): {"image": image, "colors": "heat", "opacity": 1.0},
    }
    nodes = [heat(flow, latent, capture, 734, **options) for options in cases.values()]
    outputs = comfy.run(flow)
    for (count, height, width), pair in zip(cases, nodes, strict=True):
        for node in pair:
            assert saved(comfy, outputs, node).shape == (count, height, width, 3)
    plain = saved(comfy, outputs, nodes[1][1])
    assert set(np.unique(plain)) == {0.0, 1.0}


def test_features_wired_into_a_map_make_a_map_of_each(comfy):
    flow = Flow()
    model, capture = tap(flow)
    latent = flow.sample(model)
    node = read(flow, latent, capture, count=4)
    picture, mask = heat(flow, latent, capture, [node[0], 1], steps="each")
    outputs = comfy.run(flow)
    for one in (picture, mask):
        assert saved(comfy, outputs, one).shape == (16, 128, 128, 3)
    pictures = saved(comfy, outputs, picture)
    assert all(not np.array_equal(pictures[0], other) for other in pictures[4::4])


def test_nothing_found_stops_what_it_is_wired_into_and_nothing_else(comfy):
    flow = Flow()
    model, capture = tap(flow)
    latent = flow.sample(model)
    node = read(flow, latent, capture, against=capture, against_latent=latent)
    maps = heat(flow, latent, capture, [node[0], 1])
    outputs = comfy.run(flow)
    assert found(outputs, node)["features"] == [] and not {one[0] for one in maps} & set(outputs)


def test_a_feature_that_is_never_active_is_an_empty_mask(comfy, dictionary):
    flow = Flow()
    model, capture = tap(flow, flow.watch(flow.model, "read-empty"))
    latent = flow.sample(model)
    node = read(flow, latent, capture)
    used = {one["feature"] for one in found(comfy.run(flow), node)["features"]}
    silent = next(i for i in range(dictionary.n_features) if i not in used)
    cases = [heat(flow, latent, capture, silent, threshold=threshold) for threshold in (0.0, 0.5)]
    before = comfy.log()
    outputs = comfy.run(flow)
    for picture, mask in cases:
        assert not saved(comfy, outputs, mask).any() and saved(comfy, outputs, picture).any()
    assert f"feature {silent} is never active here: the mask is empty" in comfy.log()[len(before) :]


@pytest.mark.parametrize(
    ("caption", "color"),
    [
        ("a large red circle at the center on a white background", "red"),
        ("a large blue square at the top left on a white background", "blue"),
    ],
)
def test_the_best_feature_of_the_object_segments_it(comfy, caption, color):
    """Read Features under the object's own pixels names a feature; its mask is the object, to a token's precision."""
    flow = Flow()
    model, capture = tap(flow)
    latent = flow.sample(model, caption=caption, steps=20, sampler_name="lcm", seed=3)
    picture = flow.add("VAEDecode", samples=latent, vae=flow.vae)
    shown = flow.add("SaveImage", images=picture, filename_prefix="object")
    pixels = comfy.picture(comfy.run(flow), shown)
    reading = measure(pixels)
    assert reading.color == color
    near = np.linalg.norm(pixels.astype(float) - np.array(COLORS[reading.color]), axis=-1)
    far = np.linalg.norm(pixels.astype(float) - np.array(BACKGROUNDS[reading.background]), axis=-1)
    inside = near < far
    Image.fromarray((255 * inside).astype(np.uint8)).save(comfy.base / "input" / "object.png")
    node = read(flow, latent, capture, mask=flow.mask("object.png"), by="activation", count=1, first_step=5)
    _, mask = heat(flow, latent, capture, [node[0], 1], image=picture, first_step=5)
    outputs = comfy.run(flow)
    drawn = saved(comfy, outputs, mask)[0, ..., 0] > 0.5
    overlap = (drawn & inside).sum() / (drawn | inside).sum()
    comfy.figures[f"overlap of a feature's mask with the {color} object (IoU)"] = float(overlap)
    assert overlap > 0.65


def test_a_grid_is_one_picture_with_a_tile_for_each_feature(comfy):
    flow = Flow()
    model, capture = tap(flow)
    latent = flow.sample(model, latent=flow.empty(2))
    picture = flow.add("VAEDecode", samples=latent, vae=flow.vae)
    sizes = []
    eight = {"count": 8, "columns": 4}
    for options in (eight, eight | {"image": picture}, {"count": 3}, {"count": 64}):
        settings = {"by": "peak", "columns": 8} | options
        made = flow.add("FluxtionaryFeatureGrid", latent=latent, capture=capture, **settings)
        sizes.append(flow.add("SaveImage", images=made, filename_prefix="grid"))
    outputs = comfy.run(flow)
    plain, over, few, many = (saved(comfy, outputs, node)[0] for node in sizes)
    assert plain.shape == over.shape and not np.array_equal(plain, over)
    assert 4 * 288 < plain.shape[1] < 4 * 320 and 2 * 320 < plain.shape[0] < 2 * 390
    assert few.shape[1] < plain.shape[1] < many.shape[1] and 8 * 220 < many.shape[0]
    assert many.shape[1] <= 2048


@pytest.mark.parametrize(
    ("kind", "options"),
    [("LatentMultiply", {"multiplier": 1.01}), ("LatentFlip", {"flip_method": "y-axis: horizontally"})],
)
def test_a_latent_that_was_altered_is_not_the_sampler_s(comfy, kind, options):
    flow = Flow()
    model, capture = tap(flow)
    node = read(flow, flow.add(kind, samples=flow.sample(model), **options), capture)
    with pytest.raises(
        NodeError, match="this latent comes from none of the .* runs.*just as the sampler gives it"
    ) as error:
        comfy.run(flow)
    assert error.value.node == node[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"picture": 3}, "nothing of picture 3, cond rows.*it saw pictures 0, cond rows and steps 0 to 3"),
        ({"rows": "uncond"}, "uncond rows"),
        ({"first_step": 7}, "steps 7 to the last.*steps 0 to 3"),
        ({"site": "single.1.img"}, r"this capture has double\.1\.img, not single\.1\.img"),
        ({"site": "here"}, "'here' is no site"),
    ],
)
def test_what_a_run_does_not_have_is_an_error_on_the_reading_node(comfy, options, words):
    flow = Flow()
    model, capture = tap(flow)
    latent = flow.sample(model)
    for node in (read(flow, latent, capture, **options), heat(flow, latent, capture, 1, **options)[0]):
        alone = {key: value for key, value in flow.nodes.items() if value["class_type"] != "SaveImage"}
        graph = alone if node[0] in alone else flow.nodes
        with pytest.raises(NodeError, match=words):
            comfy.wait(comfy.queue(graph))


def test_against_and_its_latent_go_together(comfy):
    flow = Flow()
    model, capture = tap(flow)
    latent = flow.sample(model)
    for options, missing in (({"against": capture}, "against_latent"), ({"against_latent": latent}, "against")):
        part = Flow()
        part.nodes = json.loads(json.dumps(flow.nodes))
        read(part, latent, capture, **options)
        with pytest.raises(NodeError, match=f"go together: connect `{missing}` too"):
            comfy.run(part)


def test_runs_of_two_dictionaries_do_not_compare(comfy):
    flow = Flow()
    model, capture = tap(flow)
    other_model, other = tap(flow, dictionary="double.safetensors")
    read(flow, flow.sample(model), capture, against=other, against_latent=flow.sample(other_model, seed=2))
    with pytest.raises(NodeError, match="through one dictionary: give both Taps the same.*1536.*48"):
        comfy.run(flow)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dictionary": None}, "nothing to watch: connect a dictionary, or name sites"),
        ({"dictionary": "wide.safetensors"}, "192 wide.*256 wide"),
        ({"dictionary": "deep.safetensors"}, r"no double\.7\.img.*2 double and 4 single"),
        ({"sites": "double.9.img"}, r"no double\.9\.img"),
        ({"sites": "double.1.img, somewhere"}, "somewhere' is no site"),
        ({"start_percent": 0.6, "end_percent": 0.4}, "start 0.6 and end 0.4"),
    ],
)
def test_a_tap_that_cannot_watch_says_so_before_sampling(comfy, options, words):
    flow = Flow()
    model, _ = tap(flow, **options)
    flow.save(flow.sample(model))
    with pytest.raises(NodeError, match=words) as error:
        comfy.run(flow)
    assert error.value.node == model[0]


def test_activations_without_a_dictionary_are_not_read(comfy):
    flow = Flow()
    model, capture = tap(flow, dictionary=None, sites="double.0.img; single.1.txt")
    latent = flow.sample(model)
    read(flow, latent, capture, site="double.0.img")
    with pytest.raises(NodeError, match="activations were kept, not codes: give the Tap a dictionary"):
        comfy.run(flow)
    flow.nodes.popitem()
    read(flow, latent, capture)
    with pytest.raises(NodeError, match=r"this capture has double\.0\.img, single\.1\.txt: say which"):
        comfy.run(flow)


def test_text_is_read_but_not_drawn(comfy):
    flow = Flow()
    model, capture = tap(flow, dictionary="text.safetensors")
    latent = flow.sample(model)
    node = read(flow, latent, capture)
    assert found(comfy.run(flow), node)["site"] == "double.0.txt"
    heat(flow, latent, capture, 1)
    with pytest.raises(NodeError, match=r"double\.0\.txt is of the text"):
        comfy.run(flow)


def test_a_dictionary_of_another_model_is_read_with_a_warning(comfy):
    """Random directions of the right width: the fit says that they mean nothing here."""
    flow = Flow()
    model, capture = tap(flow, dictionary="double.safetensors")
    node = read(flow, flow.sample(model), capture, count=3)
    outputs = comfy.run(flow)
    answer = found(outputs, node)
    assert answer["fit"]["fvu"] > 1 and "does not fit this run" in answer["warnings"][0]
    assert "Warning: this dictionary of double.1.img does not fit this run" in outputs[node[0]]["text"][0]
    assert "Tap: this dictionary of double.1.img does not fit this run" in comfy.log()

import torch

from fluxtionary.dictionaries import ITDA, Normalization
from fluxtionary.evaluation.variants import by_product, by_pursuit, product_dictionary, random_directions
from tests.conftest import make_dictionary


def tokens(n=400, d=24, seed=0):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) @ torch.diag(torch.linspace(0.5, 8, d))
    return x + 3


def fvu(dictionary, x):
    return float((x - dictionary.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum())


def test_products_with_rows_are_taken_in_normalized_space():
    x = tokens()
    normalization = Normalization.fit(x)
    dictionary = random_directions("double.1.img", normalization, 64, 5, seed=3)
    z, rows = normalization.apply(x), dictionary.decoder / normalization.std
    assert torch.allclose(rows.norm(dim=1), torch.ones(64), atol=1e-5)
    values, indices = (z @ rows.T).topk(5)
    code = dictionary.encode(x)
    assert torch.equal(code.indices.sort(1).values, indices.sort(1).values)
    assert torch.allclose(code.values.sort(1).values, values.sort(1).values, atol=1e-4)
    assert not torch.equal(dictionary.decoder, random_directions("double.1.img", normalization, 64, 5, seed=4).decoder)


def test_pursuit_over_an_autoencoders_rows_keeps_their_numbers_and_fits_better():
    x = tokens()
    normalization = Normalization.fit(x)
    product = random_directions("double.1.img", normalization, 200, 6, seed=1)
    pursued = by_pursuit(product, normalization, 6, nonnegative=True)
    for feature in (0, 17):
        cosine = torch.cosine_similarity(pursued.direction(feature), product.direction(feature), dim=0)
        assert cosine > 0.9999
    assert fvu(pursued, x) < 0.6 < fvu(product, x)
    assert (pursued.encode(x).values >= 0).all()


def test_atoms_encoded_by_products_are_the_same_directions():
    x = tokens()
    normalization = Normalization.fit(x)
    atoms = torch.nn.functional.normalize(normalization.apply(x[:50]), dim=1)
    itda = ITDA("double.1.img", atoms, 4, normalization=normalization)
    product = by_product(itda, 4)
    assert product.n_features == 50 and product.encode(x).values.shape[-1] == 4
    assert torch.allclose(product.direction(7), itda.direction(7), rtol=1e-4, atol=1e-4)
    # a token that is an atom has that atom as its largest product
    code = product.encode(x[:50])
    best = code.indices.gather(1, code.values.argmax(1, keepdim=True))[:, 0]
    assert torch.equal(best, torch.arange(50))
    assert by_pursuit(make_dictionary("double.1.img", 24), normalization, 3, True).provenance.training["encoded"]
    assert product_dictionary("double.1.img", atoms, normalization, 2).k == 2

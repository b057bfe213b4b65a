import pytest

from examples.train_resnet.options import read_options


def test_defaults_are_the_assignment():
    options = read_options([])
    assert options.optimizers == ["sgd", "adam", "adamw"]
    assert options.rates == [0.001, 0.01, 0.1]
    assert options.schedules == ["warmup_cosine"]


def test_defaults_suit_the_dataset_and_give_way_to_the_command_line():
    digits, cifar = read_options([]), read_options(["--data", "cifar10", "--data-dir", "x", "--epochs", "7"])
    assert (digits.data, cifar.data, cifar.epochs) == ("digits", "cifar10", 7)
    assert digits.batch_size != cifar.batch_size
    assert read_options(["--quick"]).epochs == 1


def test_repeated_choices_count_once():
    assert read_options(["--rates", "0.1", "0.10", "1e-1"]).rates == [0.1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rates 0", "--rates: expected a number above 0, got '0'"),
        ("--rates nan", "--rates: expected a finite number, 0 or more, got 'nan'"),
        ("--rates fast", "--rates: expected a finite number, 0 or more, got 'fast'"),
        ("--weight-decay -1", "--weight-decay: expected a finite number, 0 or more, got '-1'"),
        ("--mixup inf", "--mixup: expected a finite number, 0 or more, got 'inf'"),
        ("--epochs 0", "--epochs: expected a whole number, 1 or more, got '0'"),
        ("--batch-size 2.5", "--batch-size: expected a whole number, 1 or more, got '2.5'"),
        ("--subset 99", "--subset: expected a whole number, 100 or more, got '99'"),
        ("--optimizers lion", "--optimizers: invalid choice: 'lion'"),
        ("--data mnist", "--data: invalid choice: 'mnist'"),
        ("--data cifar10", "--data cifar10 needs --data-dir"),
        ("--data-dir x", "--data-dir is for --data cifar10"),
        ("--epochs 3 --warmup-epochs 3", "--warmup-epochs must be less than --epochs (3), got 3"),
    ],
)
def test_bad_values_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        read_options(arguments.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err

//! What a filter asks of one value, once its column's kind is known.
//!
//! An absent value satisfies only `ne`, `not_in` and `exists:false`.

use types::ApiError;

use crate::{
    ast::{Comparison, Condition, Filter, Scalar},
    json::shown,
};

/// What a value of a dimension must satisfy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DimensionTest {
    conditions: Vec<DimensionCondition>,
}

/// One condition on a dimension. Lists are sorted and hold each value once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DimensionCondition {
    In(Vec<String>),
    NotIn(Vec<String>),
    Gt(String),
    Gte(String),
    Lt(String),
    Lte(String),
    Prefix(String),
    Exists(bool),
}

impl DimensionTest {
    pub(crate) fn new(filter: &Filter) -> Result<Self, ApiError> {
        let conditions = filter.conditions.iter().map(|condition| dimension_condition(&filter.column, condition));
        Ok(Self { conditions: conditions.collect::<Result<_, _>>()? })
    }

    /// Of conditions whose lists are sorted and hold each value once.
    pub(crate) fn of(conditions: Vec<DimensionCondition>) -> Self {
        Self { conditions }
    }

    pub(crate) fn conditions(&self) -> &[DimensionCondition] {
        &self.conditions
    }

    /// Whether a row with this value passes; `None` is an absent one.
    pub(crate) fn accepts(&self, value: Option<&str>) -> bool {
        self.conditions.iter().all(|condition| condition.accepts(value))
    }

    /// The only values that can pass, where a list names them.
    pub(crate) fn candidates(&self) -> Option<&[String]> {
        self.conditions.iter().find_map(|condition| match condition {
            DimensionCondition::In(values) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// The only present values that cannot pass, where nothing but lists and existence is asked.
    pub(crate) fn exceptions(&self) -> Option<Vec<&str>> {
        let mut values = Vec::new();
        for condition in &self.conditions {
            match condition {
                DimensionCondition::NotIn(excluded) => values.extend(excluded.iter().map(String::as_str)),
                DimensionCondition::Exists(true) => {}
                _ => return None,
            }
        }
        Some(values)
    }
}

impl DimensionCondition {
    fn accepts(&self, value: Option<&str>) -> bool {
        let Some(value) = value else {
            return matches!(self, Self::NotIn(_) | Self::Exists(false));
        };
        match self {
            Self::In(values) => values.binary_search_by(|known| known.as_str().cmp(value)).is_ok(),
            Self::NotIn(values) => values.binary_search_by(|known| known.as_str().cmp(value)).is_err(),
            Self::Gt(bound) => value > bound.as_str(),
            Self::Gte(bound) => value >= bound.as_str(),
            Self::Lt(bound) => value < bound.as_str(),
            Self::Lte(bound) => value <= bound.as_str(),
            Self::Prefix(prefix) => value.starts_with(prefix),
            Self::Exists(wanted) => *wanted,
        }
    }
}

fn dimension_condition(column: &str, condition: &Condition) -> Result<DimensionCondition, ApiError> {
    let text = |scalar: &Scalar| match scalar {
        Scalar::Text(text) | Scalar::Number { text: Some(text), .. } => Ok(text.clone()),
        Scalar::Bool(flag) => Ok(flag.to_string()),
        Scalar::Number { text: None, value } => {
            let message = format!("{} is a dimension: write {value} as a string", shown(column));
            Err(ApiError::invalid(column, message))
        }
    };
    let texts = |scalars: &[Scalar]| {
        let mut texts = scalars.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        texts.sort_unstable();
        texts.dedup();
        Ok::<_, ApiError>(texts)
    };
    Ok(match condition {
        Condition::In(scalars) => DimensionCondition::In(texts(scalars)?),
        Condition::NotIn(scalars) => DimensionCondition::NotIn(texts(scalars)?),
        Condition::Compare(Comparison::Gt, scalar) => DimensionCondition::Gt(text(scalar)?),
        Condition::Compare(Comparison::Gte, scalar) => DimensionCondition::Gte(text(scalar)?),
        Condition::Compare(Comparison::Lt, scalar) => DimensionCondition::Lt(text(scalar)?),
        Condition::Compare(Comparison::Lte, scalar) => DimensionCondition::Lte(text(scalar)?),
        Condition::Prefix(prefix) => DimensionCondition::Prefix(prefix.clone()),
        Condition::Exists(wanted) => DimensionCondition::Exists(*wanted),
    })
}

/// What a value of a metric must satisfy: it lies in the closed range, is one of `any_of` where there is such a list,
/// and is none of `none_of`. Both lists are ascending, each value once, no -0.0 among them. Values are finite, so exclusive bounds become the next value inside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MetricTest {
    pub(crate) least: f64,
    pub(crate) greatest: f64,
    pub(crate) any_of: Option<Vec<f64>>,
    pub(crate) none_of: Vec<f64>,
    /// Whether any present value can pass.
    pub(crate) present: bool,
    /// Whether an absent value passes.
    pub(crate) absent: bool,
}

impl MetricTest {
    pub(crate) fn new(filter: &Filter) -> Result<Self, ApiError> {
        let mut test = Self {
            least: f64::NEG_INFINITY,
            greatest: f64::INFINITY,
            any_of: None,
            none_of: Vec::new(),
            present: true,
            absent: true,
        };
        for condition in &filter.conditions {
            test.narrow(&filter.column, condition)?;
        }
        // Several conditions may have named values; sorted once here, so that a row's value is searched fast.
        test.none_of = ascending(test.none_of);
        Ok(test)
    }

    fn narrow(&mut self, column: &str, condition: &Condition) -> Result<(), ApiError> {
        self.absent &= matches!(condition, Condition::NotIn(_) | Condition::Exists(false));
        match condition {
            Condition::In(scalars) => {
                let mut values = ascending(numbers(column, scalars)?);
                if let Some(known) = &self.any_of {
                    values.retain(|value| stands_in(known, *value));
                }
                self.any_of = Some(values);
            }
            Condition::NotIn(scalars) => self.none_of.extend(numbers(column, scalars)?),
            Condition::Compare(Comparison::Gt, scalar) => {
                self.least = self.least.max(number(column, scalar)?.next_up());
            }
            Condition::Compare(Comparison::Gte, scalar) => self.least = self.least.max(number(column, scalar)?),
            Condition::Compare(Comparison::Lt, scalar) => {
                self.greatest = self.greatest.min(number(column, scalar)?.next_down());
            }
            Condition::Compare(Comparison::Lte, scalar) => self.greatest = self.greatest.min(number(column, scalar)?),
            Condition::Prefix(_) => {
                let message = format!("prefix is for dimensions, {} is a metric", shown(column));
                return Err(ApiError::invalid(column, message));
            }
            Condition::Exists(wanted) => self.present &= *wanted,
        }
        Ok(())
    }

    /// Whether a row with this value passes; NaN is an absent one.
    pub(crate) fn accepts(&self, value: f64) -> bool {
        if value.is_nan() {
            return self.absent;
        }
        self.present
            && self.least <= value
            && value <= self.greatest
            && self.any_of.as_ref().is_none_or(|values| stands_in(values, value))
            && !stands_in(&self.none_of, value)
    }

    /// Whether the closed range and the two flags say it all.
    pub(crate) fn is_range(&self) -> bool {
        self.present && self.any_of.is_none() && self.none_of.is_empty()
    }
}

/// Whether an ascending list without -0.0 holds `value`, as `==` compares.
fn stands_in(ascending: &[f64], value: f64) -> bool {
    // The list is in the total order, which tells -0.0 and 0.0 apart: adding zero makes -0.0 plain, as in the list.
    let value = value + 0.0;
    ascending.binary_search_by(|known| known.total_cmp(&value)).is_ok()
}

/// Each value once, in the total order.
fn ascending(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.dedup();
    values
}

fn numbers(column: &str, scalars: &[Scalar]) -> Result<Vec<f64>, ApiError> {
    scalars.iter().map(|scalar| number(column, scalar)).collect()
}

fn number(column: &str, scalar: &Scalar) -> Result<f64, ApiError> {
    match scalar {
        // Adding zero makes -0.0 plain: equal filters have equal plans, and the next value above or below is the same.
        Scalar::Number { value, .. } => Ok(value + 0.0),
        Scalar::Text(_) | Scalar::Bool(_) => {
            Err(ApiError::invalid(column, format!("{} is a metric: its filter needs numbers", shown(column))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(negative: bool, values: &[f64]) -> Condition {
        let scalars = values.iter().map(|&value| Scalar::Number { value, text: None }).collect();
        if negative { Condition::NotIn(scalars) } else { Condition::In(scalars) }
    }

    /// Goal: lists of numbers, in any order and over several conditions, accept what a search value by value accepts;
    /// -0.0 is 0.0 in the list and in the row, and an absent value passes `not_in` alone.
    #[test]
    fn lists_of_numbers_are_searched_as_equality_says() {
        let lists: [&[f64]; 5] = [&[], &[-0.0], &[0.0, -0.0, 7.0], &[9.0, -3.5, 0.0, 9.0, 1e300], &[3.0, 2.0, 1.0]];
        let rows = [-1e300, -3.5, -1.0, -0.0, 0.0, 1.0, 2.0, 2.5, 3.0, 7.0, 9.0, 1e300, f64::NAN];
        for (first, second) in lists.iter().flat_map(|first| lists.iter().map(move |second| (*first, *second))) {
            for (first_not, second_not) in [(false, false), (false, true), (true, false), (true, true)] {
                let conditions = vec![condition(first_not, first), condition(second_not, second)];
                let test = MetricTest::new(&Filter { column: "m".to_owned(), conditions }).unwrap();
                for row in rows {
                    let expected = if row.is_nan() {
                        first_not && second_not
                    } else {
                        first.contains(&row) != first_not && second.contains(&row) != second_not
                    };
                    assert_eq!(test.accepts(row), expected, "{row} in {first:?} {second:?} {first_not} {second_not}");
                }
            }
        }
    }
}

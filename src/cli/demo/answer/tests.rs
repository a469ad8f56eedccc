use super::super::dataset::{INVENTORY, SALES, SUPPORT};
use super::*;

/// Sums a column in a way independent of the code under test.
fn total(dataset: &Dataset, column: &str, keep: impl Fn(&DataRow) -> bool) -> f64 {
    let at = dataset.position(column).expect("a column");
    dataset.rows().iter().filter(|row| keep(row)).map(|row| row[at].parse::<f64>().expect("a number")).sum()
}

fn count(dataset: &Dataset, keep: impl Fn(&DataRow) -> bool) -> usize {
    dataset.rows().iter().filter(|row| keep(row)).count()
}

fn rows(text: &str, dataset: &Dataset) -> Vec<Value> {
    answer(text, None, dataset)["rows"].as_array().expect("rows").clone()
}

#[test]
fn counting_with_a_filter() {
    let march = count(&SALES, |row| row[1].starts_with("2026-03"));
    assert!(march > 0);
    assert_eq!(rows("How many orders were there in March?", &SALES), [json!({"orders": march})]);
    let open = count(&SUPPORT, |row| row[5] == "Open" && row[4] == "High");
    assert_eq!(rows("number of open high tickets", &SUPPORT), [json!({"tickets": open})]);
}

#[test]
fn a_sum_per_group_is_ordered_and_complete() {
    let found = rows("Total revenue per region", &SALES);
    assert_eq!(found.len(), 4);
    let amounts: Vec<f64> = found.iter().map(|row| row["total_amount"].as_f64().expect("a number")).collect();
    assert!(amounts.is_sorted_by(|a, b| a >= b), "{amounts:?}");
    assert_eq!(amounts.iter().sum::<f64>(), total(&SALES, "amount", |_| true));
    let north = found.iter().find(|row| row["region"] == "North").expect("a row");
    assert_eq!(north["total_amount"], total(&SALES, "amount", |row| row[5] == "North"));
}

#[test]
fn the_top_groups_and_the_top_rows() {
    let products = rows("Top 3 products by revenue", &SALES);
    assert_eq!(products.len(), 3);
    assert!(products[0]["product"].is_string() && products[0]["total_amount"].is_number());
    let orders = rows("top 4 orders by amount", &SALES);
    assert_eq!(orders.len(), 4);
    assert!(orders[0]["amount"].as_f64() >= orders[1]["amount"].as_f64());
    assert_eq!(rows("bottom two products by units", &SALES).len(), 2);
}

#[test]
fn averages_are_of_the_number_named() {
    let n = count(&SUPPORT, |row| row[3] == "Delivery") as f64;
    let mean = total(&SUPPORT, "hours", |row| row[3] == "Delivery") / n;
    let found = rows("average hours for delivery", &SUPPORT);
    assert_eq!(found, [json!({"average_hours": number(mean)})]);
}

#[test]
fn which_has_the_most_is_one_row() {
    let found = rows("Which agent has the highest satisfaction?", &SUPPORT);
    assert_eq!(found.len(), 1);
    assert!(found[0]["agent"].is_string() && found[0]["average_satisfaction"].is_number(), "{found:?}");
    assert_eq!(rows("which region has the most orders", &SALES)[0]["orders"], {
        let by = |region| count(&SALES, |row| row[5] == region);
        ["North", "South", "East", "West"].map(by).into_iter().max().expect("some")
    });
}

#[test]
fn rows_are_listed_between_bounds_and_values() {
    let found = rows("List the orders of Aurora Cafe over 300", &SALES);
    assert_eq!(
        found.len(),
        count(&SALES, |row| row[2] == "Aurora Cafe" && row[8].parse::<f64>().expect("n") >= 300.0)
    );
    let low = rows("List items with stock below 10", &INVENTORY);
    assert!(!low.is_empty() && low.iter().all(|row| row["stock"].as_f64() <= Some(10.0)));
}

#[test]
fn months_come_in_their_order() {
    let found = rows("revenue by month", &SALES);
    let months: Vec<&str> = found.iter().filter_map(|row| row["month"].as_str()).collect();
    assert_eq!(months, ["2026-01", "2026-02", "2026-03", "2026-04", "2026-05", "2026-06"]);
    let q2 =
        count(&SALES, |row| ["2026-04", "2026-05", "2026-06"].iter().any(|month| row[1].starts_with(month)));
    assert_eq!(rows("how many orders in q2", &SALES), [json!({"orders": q2})]);
}

#[test]
fn a_value_may_be_of_several_words_and_in_the_plural() {
    let found = rows("how many orders of floor lamps", &SALES);
    assert_eq!(found, [json!({"orders": count(&SALES, |row| row[3] == "Floor Lamp")})]);
}

#[test]
fn the_limit_cuts_and_says_what_there_was() {
    let answer = answer("list all orders", Some(5), &SALES);
    assert_eq!((&answer["row_count"], &answer["total_rows"]), (&json!(5), &json!(60)));
}

#[test]
fn what_is_not_about_the_data_is_said_not_guessed() {
    for text in ["What is the meaning of life?", "", "hello"] {
        let answer = answer(text, None, &SALES);
        assert!(answer["answer"].as_str().expect("text").contains("did not understand"), "{text}: {answer}");
    }
}

#[test]
fn every_sample_question_is_understood() {
    for dataset in super::super::dataset::ALL {
        for sample in dataset.samples {
            let answer = answer(sample, None, dataset);
            assert!(answer["row_count"].as_u64() > Some(0), "{sample}: {answer}");
        }
    }
}

#[test]
fn sentences_say_what_was_looked_for() {
    let sentences = [
        answer("How many orders were there in March?", None, &SALES),
        answer("Total revenue per region in the North and South", None, &SALES),
        answer("Average order amount online", None, &SALES),
        answer("List urgent tickets in June", None, &SUPPORT),
        answer("List items with stock below 10", None, &INVENTORY),
    ];
    let text: Vec<&str> = sentences.iter().filter_map(|answer| answer["answer"].as_str()).collect();
    insta::assert_snapshot!(text.join("\n"));
}
